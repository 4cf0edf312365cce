"""What is searched: objects, prices, queries and the exact answers, made once a size and mapped from disk.

A folder holds `SPACE.npy` (N, d) float32, `SPACE.queries.npy` (Q, d), `shown.npy` (Q,) the product that each
query shows or -1, `prices.npy` (P,) and `exact.npy` (F, Q, K), the objects that an exact search finds under
each of FILTERS, -1 where fewer pass. It takes about a kilobyte an object.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magpie.ranking.config import DEFAULT_WEIGHTS
from tests.bench.index.clustered_vectors import OBJECTS, Shop, Vectors
from tests.bench.index.exact import nearest

K = 10
QUERIES = 1000
UNKNOWN = 0.2  # share of the queries that show a product which is not in the shop
HIGHEST_PRICE = 1000.0
FILTERS: tuple[float | None, ...] = (
    None,
    1.0,
    0.1,
    0.01,
    0.001,
)  # share of the products that pass; None: no filter
ROWS_AT_ONCE = 16_384

Ids = NDArray[np.int64]


class Collection:
    """Reads such a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vectors = {space: self._read(space) for space in DEFAULT_WEIGHTS}
        self.queries = {space: np.array(self._read(f"{space}.queries")) for space in DEFAULT_WEIGHTS}
        self.prices: NDArray[np.float64] = np.array(self._read("prices"))
        self.exact: Ids = np.array(self._read("exact"))

    def __len__(self) -> int:
        """Objects."""
        return len(next(iter(self.vectors.values())))

    @property
    def products(self) -> int:
        return len(self.prices)

    @cached_property
    def fused_queries(self) -> Vectors:
        """(Q, D), see `fused`."""
        return fused(self.queries)

    def fused(self, rows: slice | NDArray[np.int64]) -> Vectors:
        """(R, D) vectors whose inner product is the fused similarity."""
        return fused({space: vectors[rows] for space, vectors in self.vectors.items()})

    def blocks(self) -> Iterator[tuple[slice, Vectors]]:
        """All of `fused`, ROWS_AT_ONCE at once."""
        for first in range(0, len(self), ROWS_AT_ONCE):
            rows = slice(first, min(first + ROWS_AT_ONCE, len(self)))
            yield rows, self.fused(rows)

    def _read(self, name: str) -> NDArray[np.generic]:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


def fused(vectors: dict[str, Vectors]) -> Vectors:
    """Space -> (N, d) as (N, D): sqrt(w) * v of every space, side by side.

    The inner product of two such rows is the weighted mean of the cosines, so an index that knows one vector
    an object can look for the same neighbours as one that knows the spaces.
    """
    return np.concatenate(
        [np.float32(w**0.5) * vectors[space] for space, w in DEFAULT_WEIGHTS.items()], axis=1
    )


def below(share: float) -> float:
    """The price below which this share of the products lies."""
    return HIGHEST_PRICE * share


def make(
    folder: Path, objects: int, seed: int = 0, tell: Callable[[str], None] = lambda _: None
) -> Collection:
    """Make the folder, or take the one that is there. `objects` is rounded down to whole products."""
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        shop = Shop(objects // OBJECTS, seed)
        tell("vectors")
        _write_vectors(part, shop)
        queries, shown = shop.queries(QUERIES, UNKNOWN)
        for space, rows in queries.items():
            np.save(part / f"{space}.queries.npy", rows)
        np.save(part / "shown.npy", shown)
        order = np.random.default_rng(seed).permutation(shop.products)
        prices = (
            HIGHEST_PRICE * (order + 0.5) / shop.products
        )  # evenly: a filter keeps the share that it should
        np.save(part / "prices.npy", prices)
        tell("exact answers")
        of_objects = np.repeat(prices, OBJECTS)
        masks = [None if share is None else of_objects < below(share) for share in FILTERS]
        blocks = (
            (
                first,
                fused(
                    {
                        space: np.load(part / f"{space}.npy", mmap_mode="r")[first : first + ROWS_AT_ONCE]
                        for space in DEFAULT_WEIGHTS
                    }
                ),
            )
            for first in range(0, len(of_objects), ROWS_AT_ONCE)
        )
        np.save(part / "exact.npy", nearest(fused(queries), blocks, masks, K))
        part.rename(folder)
    return Collection(folder)


def _write_vectors(folder: Path, shop: Shop) -> None:
    files: dict[str, np.memmap] = {}
    first = 0
    for chunk in shop.objects():
        for space, rows in chunk.items():
            if space not in files:
                shape = (shop.products * OBJECTS, rows.shape[1])
                files[space] = np.lib.format.open_memmap(folder / f"{space}.npy", "w+", np.float32, shape)
            files[space][first : first + len(rows)] = rows
        first += len(rows)
    for file in files.values():
        file.flush()
