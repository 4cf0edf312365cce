"""Graded queries: what search finds for each photo, and how good each product would be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magpie.ranking.calibration import HIT_SPACE
from magpie.ranking.hubness import Hubness
from magpie.tables.csv_table import read_table
from magpie.tables.problems import BadFile, Problem
from magpie.tables.queries import Query, read_queries
from training.ranking.serving_path import PictureVectors

DEPTH = 10  # places that are judged, as by `magpie evaluate`
PER_SPACE = 100  # candidates of a query object in each space, as search takes them


@dataclass(frozen=True, eq=False)
class Candidates:
    """What search finds for one photo: N pairs of an object in it and an object of the catalogue."""

    similarity: NDArray[np.float64]  # (N, S)
    product: NDArray[np.intp]  # (N,) numbered in the order of their ids
    grades: Mapping[int, float]  # product -> grade, above 0
    penalty: NDArray[np.float64] | float = 0.0  # (N, S), what ranking takes off the similarities

    @property
    def counted(self) -> NDArray[np.float64]:
        """What is ranked by: (N, S)."""
        return self.similarity - self.penalty

    def ranking(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The first DEPTH products by the weighted mean (S,), and their scores; each by its best pair.

        What search answers: ties go to the smaller product.
        """
        scores = self.counted @ (weights / weights.sum())
        order = np.lexsort((self.product, -scores))
        _, first = np.unique(self.product[order], return_index=True)
        best = order[np.sort(first)][:DEPTH]
        return self.product[best], scores[best]

    def ndcg(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """nDCG@10, gain 2^grade - 1, of the rankings by many weights at once: (W, S), sum 1 -> (W,)."""
        order = np.argsort(self.product, kind="stable")
        products, starts = np.unique(self.product[order], return_index=True)
        scores = np.maximum.reduceat(self.counted[order] @ weights.T, starts, axis=0)  # (P, W)
        first = np.argsort(-scores, axis=0, kind="stable")[:DEPTH]  # (K, W)
        gains = np.array([2.0 ** self.grades.get(int(product), 0.0) - 1.0 for product in products])
        ideal = np.sort([2.0**grade - 1.0 for grade in self.grades.values()])[::-1][:DEPTH]
        discounts = 1.0 / np.log2(np.arange(DEPTH) + 2.0)
        reached = (gains[first] * discounts[: len(first), None]).sum(axis=0)
        return np.asarray(reached / (ideal * discounts[: len(ideal)]).sum(), np.float64)


def read_graded(path: Path, products: Collection[str]) -> list[Query]:
    """Queries whose products are all in the catalogue. Raises BadFile with the lines that are not."""
    queries = read_queries(path)
    rows = read_table(path, required=("image", "product_id")).rows
    problems = [
        Problem(row.line, f"product `{row.cells['product_id']}` is not in the catalogue")
        for row in rows
        if row.cells["product_id"] not in products
    ]
    if problems:
        raise BadFile(str(path), problems)
    return queries


def candidates_of(
    photos: PictureVectors,
    shelf: PictureVectors,
    product: NDArray[np.intp],
    grades: Sequence[Mapping[int, float]],
    spaces: Sequence[str],
    hubness: Hubness | None = None,
) -> list[Candidates]:
    """One a photo, in the order of `grades`. `product` (C,) numbers the product of each catalogue picture.

    As search does: for each object of a photo the union of the nearest in every space.
    """
    of_object = product[shelf.picture]
    penalty = np.zeros((len(of_object), len(spaces)))
    if hubness is not None:
        penalty = hubness.penalties(shelf.vectors[HIT_SPACE], spaces)
    found = []
    for number, known in enumerate(grades):
        rows = photos.of(number)
        cosines = np.stack(
            [photos.vectors[s][rows] @ shelf.vectors[s].T for s in spaces], axis=2
        )  # (I, O, S)
        parts, rows_near = [], []
        for similarity in cosines.astype(np.float64):
            near = np.arange(len(similarity))
            if len(near) > PER_SPACE:
                near = np.unique(np.argpartition(-similarity, PER_SPACE, axis=0)[:PER_SPACE])
            parts.append(similarity[near])
            rows_near.append(near)
        objects = np.concatenate(rows_near)
        found.append(Candidates(np.concatenate(parts), of_object[objects], known, penalty[objects]))
    return found
