"""Which products the model confuses: mined over the whole training set, and from bad cases found in use.

Mining looks at the nearest other products of each picture in the identity space (Harwood et al. 2017, arXiv
1704.01285, in its simplest form: exact and offline). What it finds decides which products meet in a batch,
where the batch-hard triplet loss then picks the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magpie.tables.csv_table import read_table
from magpie.tables.problems import BadFile, Problem
from training.datasets.example import Example

Counts = NDArray[np.float64]  # (P, P): how often a picture of the row's product was taken for the column's

BAD_CASE = 10.0  # mined confusions that one bad case of a file counts for


class Rivals:
    """For each product the ones that it is taken for. Part of a checkpoint: batches depend on it."""

    def __init__(self, products: int) -> None:
        self._mined: Counts = np.zeros((products, products))
        self._told: Counts = np.zeros((products, products))
        self._keep = products

    @property
    def known(self) -> bool:
        """Whether any product has a rival."""
        return bool(self._mined.any() or self._told.any())

    def mine(self, vectors: NDArray[np.float32], products: NDArray[np.int64], keep: int) -> float:
        """Count confusions anew. `vectors` (N, D) unit norm, `products` (N,), -1 where unknown.

        Each picture votes for the `keep` other products nearest to it; a vote counts as much as the rival is
        nearer than the picture's own product. Returns the share of pictures whose nearest other picture
        shows another product.
        """
        rows = np.flatnonzero(products >= 0)
        vectors, products = vectors[rows], products[rows]
        self._keep = keep
        self._mined = np.zeros_like(self._mined)
        confused = 0
        for first in range(0, len(rows), 1024):
            block = slice(first, first + 1024)
            similarity = vectors[block] @ vectors.T  # (n, N)
            similarity[np.arange(len(similarity)), np.arange(first, first + len(similarity))] = -np.inf
            best = _best_by_product(similarity, products, len(self._mined))  # (n, P)
            own = products[block]
            nearness = best - best[np.arange(len(own)), own][:, None]  # > 0: nearer than the own product
            nearness[np.arange(len(own)), own] = -np.inf
            confused += int((nearness.max(axis=1) > 0).sum())
            votes = 1 / (1 + np.exp(-10 * nearness))  # a rival just as near counts a half
            for row, product in enumerate(own):
                top = np.argpartition(-nearness[row], min(keep, nearness.shape[1] - 1) - 1)[:keep]
                top = top[np.isfinite(nearness[row, top])]
                self._mined[product, top] += votes[row, top]
        return confused / max(1, len(rows))

    def tell(self, cases: Sequence[tuple[int, int]]) -> None:
        """Bad cases: (right product, wrong product)."""
        for right, wrong in cases:
            self._told[right, wrong] += BAD_CASE
            self._told[wrong, right] += BAD_CASE

    def draw(self, rng: np.random.Generator, seeds: list[int], wanted: int) -> list[int]:
        """`seeds` and products that they are confused with, `wanted` at most, none twice."""
        chosen = list(seeds)
        counts = self._mined + self._told
        turn = 0
        while len(chosen) < wanted and turn < 4 * wanted and seeds:
            chances = counts[seeds[turn % len(seeds)]].copy()
            turn += 1
            chances[chosen] = 0
            if self._keep < len(chances):
                chances[np.argsort(-chances)[self._keep :]] = 0
            if chances.sum() > 0:
                chosen.append(int(rng.choice(len(chances), p=chances / chances.sum())))
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"mined": self._mined, "told": self._told, "keep": self._keep}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._mined, self._told, self._keep = state_dict["mined"], state_dict["told"], state_dict["keep"]


def _best_by_product(
    similarity: NDArray[np.float32], products: NDArray[np.int64], count: int
) -> NDArray[np.float32]:
    """Similarity of each row to its nearest picture of every product: (n, N), (N,) -> (n, P)."""
    order = np.argsort(products, kind="stable")
    present, starts = np.unique(products[order], return_index=True)
    best = np.full((len(similarity), count), -np.inf, np.float32)
    best[:, present] = np.maximum.reduceat(similarity[:, order], starts, axis=1)
    return best


def read_bad_cases(
    path: Path, products: Sequence[str], dataset: str = ""
) -> tuple[list[tuple[int, int]], list[Example]]:
    """Bad cases found in use: CSV of image, product_id, wrong_product_id.

    `products` are the training's names, `data set/product`; a name in the file may leave the data set out
    where that is clear. Returns the pairs (right, wrong) as numbers, and the query photos as further examples
    of the right product (rows without an image add none). Raises BadFile with everything that is wrong.
    """
    table = read_table(path, required=("product_id", "wrong_product_id"))
    problems = list(table.problems)
    by_short: dict[str, list[int]] = {}
    for number, name in enumerate(products):
        for form in (name, name.split("/", 1)[1]):
            by_short.setdefault(form, []).append(number)
    pairs, photos = [], []
    for row in table.rows:
        numbers = []
        for column in ("product_id", "wrong_product_id"):
            found = by_short.get(row.cells[column], [])
            if len(found) != 1:
                what = "is no product of the training data" if not found else "is in several data sets"
                problems.append(Problem(row.line, f"`{column}` {row.cells[column]!r} {what}"))
            numbers += found[:1]
        image = row.cells.get("image", "")
        if image and not (path.parent / image).is_file():
            problems.append(Problem(row.line, f"`image`: there is no file {path.parent / image}"))
        if len(numbers) == 2:
            pairs.append((numbers[0], numbers[1]))
            if image:
                owner, product = products[numbers[0]].split("/", 1)
                photos.append(Example(path.parent / image, dataset or owner, product))
    if problems:
        raise BadFile(str(path), problems)
    return pairs, photos
