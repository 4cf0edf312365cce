"""What is searched: objects, prices, queries and the exact answers, made once a size and mapped from disk.

A folder holds `SPACE.npy` (N, d) float32, `SPACE.queries.npy` (Q, d), `shown.npy` (Q,) the product that each
query shows or -1, `prices.npy` (P,) and `exact.npy` (F, Q, K), the objects that an exact search finds under
each of FILTERS, -1 where fewer pass. It takes about a kilobyte an object.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magpie.ranking.config import DEFAULT_WEIGHTS
from tests.bench.index.clustered_vectors import OBJECTS, PRODUCTS_AT_ONCE, Shop, Vectors
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
Tell = Callable[[str], None]


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
        return fused_blocks(self.vectors)

    def _read(self, name: str) -> NDArray[np.generic]:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


def fused(vectors: Mapping[str, Vectors]) -> Vectors:
    """Space -> (N, d) as (N, D): sqrt(w) * v of every space, side by side.

    The inner product of two such rows is the weighted mean of the cosines, so an index that knows one vector
    an object can look for the same neighbours as one that knows the spaces.
    """
    return np.concatenate(
        [np.float32(w**0.5) * vectors[space] for space, w in DEFAULT_WEIGHTS.items()], axis=1
    )


def fused_blocks(vectors: Mapping[str, Vectors]) -> Iterator[tuple[slice, Vectors]]:
    """Space -> (N, d) as `fused` does it, ROWS_AT_ONCE at once."""
    count = len(next(iter(vectors.values())))
    for first in range(0, count, ROWS_AT_ONCE):
        rows = slice(first, min(first + ROWS_AT_ONCE, count))
        yield rows, fused({space: matrix[rows] for space, matrix in vectors.items()})


def below(share: float) -> float:
    """The price below which this share of the products lies."""
    return HIGHEST_PRICE * share


def make(folder: Path, objects: int, seed: int = 0, tell: Tell = lambda _: None) -> Collection:
    """Make the folder, or take what this code has made there. `objects` is rounded down to whole products."""
    made_by = _digest(objects, seed)
    note = folder / "made-by.txt"
    if not (note.exists() and note.read_text() == made_by):
        part = folder.with_name(f"{folder.name}.part")
        for leftover in (folder, part):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        _write(part, Shop(objects // OBJECTS, seed), seed, tell)
        (part / note.name).write_text(made_by)
        part.rename(folder)
    return Collection(folder)


def _write(folder: Path, shop: Shop, seed: int, tell: Tell) -> None:
    tell("vectors")
    vectors = _write_vectors(folder, shop)
    queries, shown = shop.queries(QUERIES, UNKNOWN)
    for space, rows in queries.items():
        np.save(folder / f"{space}.queries.npy", rows)
    np.save(folder / "shown.npy", shown)
    order = np.random.default_rng(seed).permutation(shop.products)
    prices = HIGHEST_PRICE * (order + 0.5) / shop.products  # evenly: a filter keeps just its share
    np.save(folder / "prices.npy", prices)
    tell("exact answers")
    of_objects = np.repeat(prices, OBJECTS)
    masks = [None if share is None else of_objects < below(share) for share in FILTERS]
    blocks = ((rows.start, block) for rows, block in fused_blocks(vectors))
    np.save(folder / "exact.npy", nearest(fused(queries), blocks, masks, K))


def _digest(objects: int, seed: int) -> str:
    digest = hashlib.sha256(f"{objects} {seed}".encode())
    for module in ("clustered_vectors", "collection", "exact"):
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return digest.hexdigest()


def _write_vectors(folder: Path, shop: Shop) -> dict[str, Vectors]:
    files: dict[str, np.memmap[tuple[int, ...], np.dtype[np.float32]]] = {}
    first = 0
    for chunk in shop.objects():
        for space, rows in chunk.items():
            if space not in files:
                shape = (shop.products * OBJECTS, rows.shape[1])
                files[space] = np.lib.format.open_memmap(folder / f"{space}.npy", "w+", np.float32, shape)
            files[space][first : first + len(rows)] = rows
        first += OBJECTS * PRODUCTS_AT_ONCE
    for file in files.values():
        file.flush()
    return dict(files)
