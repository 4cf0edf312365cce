"""What each query finds: the gallery's pictures by cosine, and which of them are right.

Grades, for nDCG: a right picture has 3 where the set names `related`, and a picture of another product that
shares the query's label `related` has 1; without `related` right is 1 and all else 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magpie.errors import InvalidArgument
from training.datasets.example import Example
from training.embedding.retrieval import Vectors
from training.evaluation.metrics import per_query
from training.evaluation.result import PerQuery
from training.evaluation.suite import EvaluationSet

RIGHT, RELATED = 3.0, 1.0
HITS = 10  # kept of each query
BLOCK = 4_000_000  # similarities in memory at a time


@dataclass(frozen=True)
class Query:
    """A picture to search with, and the grade of each value of the relevant column that is right for it."""

    example: Example
    right: Mapping[str, float]


@dataclass(frozen=True)
class Ranking:
    """All queries of a set, ranked. Queries for which the gallery has nothing right are left out."""

    queries: tuple[Query, ...]  # (Q,)
    gallery: tuple[Example, ...]  # (G,)
    metrics: Mapping[str, PerQuery]
    hits: NDArray[np.int64]  # (Q, HITS) rows of the gallery, best first; -1 where there is no more
    scores: NDArray[np.float32]  # (Q, HITS) cosine, less the penalty
    is_right: NDArray[np.bool_]  # (Q, HITS)
    best_right: NDArray[np.int64]  # (Q,) row of the gallery: the first right one
    place: NDArray[np.int64]  # (Q,) its place, from 1
    without_answer: int  # queries left out


def value_of(example: Example, relevant: str) -> str | None:
    """What the picture shows, in the sense of the set."""
    return example.product if relevant == "product" else example.labels.get(relevant)


def queries_of(examples: Sequence[Example], relevant: str) -> list[Query]:
    """One for each file; a file that stands there for several products has them all right."""
    right: dict[object, dict[str, float]] = {}
    first: dict[object, Example] = {}
    for example in examples:
        value = value_of(example, relevant)
        if value is not None:
            first.setdefault(example.path, example)
            right.setdefault(example.path, {})[value] = 1.0
    return [Query(example, right[path]) for path, example in first.items()]


def rank(
    entry: EvaluationSet,
    queries: Sequence[Query],
    query_vectors: Vectors,
    gallery: Sequence[Example],
    gallery_vectors: Vectors,
    penalty: NDArray[np.float64] | None = None,
) -> Ranking:
    """(Q, D) against (G, D). A picture never finds itself, nor its own source where the set says so.

    `penalty` (G,) is taken off the cosines; without it nothing is. Raises InvalidArgument if no query has
    anything right in the gallery.
    """
    penalty = np.zeros(len(gallery)) if penalty is None else penalty
    block = max(1, BLOCK // max(1, len(gallery)))
    parts = []
    for first in range(0, len(queries), block):
        rows = slice(first, first + block)
        part = _rank_block(entry, queries[rows], query_vectors[rows], gallery, gallery_vectors, penalty)
        parts.append(part)
    answerable = np.concatenate([part.answerable for part in parts])
    if not answerable.any():
        raise InvalidArgument(entry.name, f"no query has a picture of the same {entry.relevant} to be found")
    return Ranking(
        queries=tuple(query for query, kept in zip(queries, answerable, strict=True) if kept),
        gallery=tuple(gallery),
        metrics={name: np.concatenate([part.metrics[name] for part in parts]) for name in parts[0].metrics},
        hits=np.concatenate([part.hits for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        is_right=np.concatenate([part.is_right for part in parts]),
        best_right=np.concatenate([part.best_right for part in parts]),
        place=np.concatenate([part.place for part in parts]),
        without_answer=int((~answerable).sum()),
    )


@dataclass(frozen=True)
class _Block:
    answerable: NDArray[np.bool_]  # (B,); all else is of the answerable alone
    metrics: Mapping[str, PerQuery]
    hits: NDArray[np.int64]
    scores: NDArray[np.float32]
    is_right: NDArray[np.bool_]
    best_right: NDArray[np.int64]
    place: NDArray[np.int64]


def _rank_block(
    entry: EvaluationSet,
    queries: Sequence[Query],
    query_vectors: Vectors,
    gallery: Sequence[Example],
    gallery_vectors: Vectors,
    penalty: NDArray[np.float64],
) -> _Block:
    allowed = ~_excluded(entry, queries, gallery)  # (B, G)
    grades, right = _judgements(entry, queries, gallery)
    grades, right = grades * allowed, right & allowed
    answerable = np.asarray(right.any(axis=1))  # (B,)
    grades, right, allowed = grades[answerable], right[answerable], allowed[answerable]
    counted = query_vectors[answerable] @ gallery_vectors.T - penalty.astype(np.float32)
    similarity = np.where(allowed, counted, np.float32(-np.inf))
    order = np.argsort(-similarity, axis=1, kind="stable")  # equal ones in the gallery's order
    ordered_right = np.take_along_axis(right, order, axis=1)
    metrics = per_query(ordered_right, np.take_along_axis(grades, order, axis=1))
    hits = order[:, :HITS]
    scores = np.take_along_axis(similarity, hits, axis=1)
    first = ordered_right.argmax(axis=1)
    wider = ((0, 0), (0, HITS - hits.shape[1]))
    return _Block(
        answerable=answerable,
        metrics=metrics,
        hits=np.pad(np.where(np.isfinite(scores), hits, -1), wider, constant_values=-1),
        scores=np.pad(scores, wider, constant_values=-np.inf),
        is_right=np.pad(ordered_right[:, :HITS], wider, constant_values=False),
        best_right=np.take_along_axis(order, first[:, None], axis=1)[:, 0],
        place=first + 1,
    )


def _excluded(
    entry: EvaluationSet, queries: Sequence[Query], gallery: Sequence[Example]
) -> NDArray[np.bool_]:
    """(B, G): the picture itself, and with `leave_out = "source"` all that the same source took."""
    excluded = _same([str(q.example.path) for q in queries], [str(e.path) for e in gallery])
    if entry.leave_out == "source":
        excluded |= _same([q.example.source for q in queries], [e.source for e in gallery])
    return excluded


def _judgements(
    entry: EvaluationSet, queries: Sequence[Query], gallery: Sequence[Example]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Grades (B, G) and what is right (B, G)."""
    rows_of: dict[str | None, list[int]] = {}
    for row, example in enumerate(gallery):
        rows_of.setdefault(value_of(example, entry.relevant), []).append(row)
    right = np.zeros((len(queries), len(gallery)), bool)
    for row, query in enumerate(queries):
        for value in query.right:
            right[row, rows_of.get(value, [])] = True
    if not entry.related:
        return right.astype(np.float64), right
    related = _same(
        [query.example.labels.get(entry.related) for query in queries],
        [example.labels.get(entry.related) for example in gallery],
    )
    return np.where(right, RIGHT, np.where(related, RELATED, 0.0)), right


def _same(left: Sequence[str | None], right: Sequence[str | None]) -> NDArray[np.bool_]:
    """(L, R); what is not known equals nothing."""
    codes = {value: code for code, value in enumerate(sorted({v for v in (*left, *right) if v is not None}))}
    rows = np.array([codes.get(value, -1) if value is not None else -1 for value in left])
    columns = np.array([codes.get(value, -2) if value is not None else -2 for value in right])
    same: NDArray[np.bool_] = rows[:, None] == columns[None, :]
    return same
