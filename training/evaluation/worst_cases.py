"""Where a model goes wrong: the queries whose right answer stands lowest, and a file to train against."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.datasets.example import Example
from training.evaluation.ranking import Query, Ranking

SHOWN_HITS = 5


@dataclass(frozen=True)
class Hit:
    """One found picture."""

    example: Example
    score: float  # cosine
    right: bool


@dataclass(frozen=True)
class WorstCase:
    """A query, what it found, and what it should have found."""

    query: Query
    hits: tuple[Hit, ...]  # best first
    right: Example  # the right picture that stands highest
    place: int  # of that one, from 1


def worst_cases(ranking: Ranking, count: int) -> list[WorstCase]:
    """Queries whose first hit is wrong, the lowest right answer first."""
    order = np.argsort(-ranking.place, kind="stable")
    rows = [int(row) for row in order[:count] if ranking.place[row] > 1]
    return [_case(ranking, row) for row in rows]


def bad_case_rows(ranking: Ranking) -> Iterator[tuple[Example, str, str]]:
    """(query, right product, the one found first instead); products as `data set/name`."""
    for row in np.flatnonzero(ranking.place > 1):
        query = ranking.queries[row].example
        wrong = ranking.gallery[ranking.hits[row, 0]]
        right = ranking.gallery[ranking.best_right[row]]
        if right.product and wrong.product:
            yield query, f"{right.dataset}/{right.product}", f"{wrong.dataset}/{wrong.product}"


def write_bad_cases(ranking: Ranking, path: Path) -> int:
    """CSV of image, product_id, wrong_product_id, as a training takes it; how many rows.

    `image` is relative to the file.
    """
    rows = list(bad_case_rows(ranking))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "product_id", "wrong_product_id"))
        for example, right, wrong in rows:
            # Links resolved: `..` from a linked folder would lead elsewhere.
            relative = os.path.relpath(example.path.resolve(), path.parent.resolve())
            writer.writerow((Path(relative).as_posix(), right, wrong))
    return len(rows)


def _case(ranking: Ranking, row: int) -> WorstCase:
    hits = tuple(
        Hit(
            ranking.gallery[ranking.hits[row, place]],
            float(ranking.scores[row, place]),
            bool(ranking.is_right[row, place]),
        )
        for place in range(SHOWN_HITS)
        if ranking.hits[row, place] >= 0
    )
    right = ranking.gallery[ranking.best_right[row]]
    return WorstCase(ranking.queries[row], hits, right, int(ranking.place[row]))
