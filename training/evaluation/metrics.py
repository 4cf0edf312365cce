"""Retrieval metrics a query, by ranx (Bassani, ECIR 2022) where it has them.

| name | what it is |
|---|---|
| recall@k | 1 if a right picture is among the first k, else 0: the mean is the share of queries (hit rate) |
| mrr | 1 / place of the first right picture |
| ndcg@10 | discounted gain of the first 10 over that of the best order; the gain is 2^grade - 1 |
| map@r | precision at each right place among the first R, over R, the number of right pictures |

nDCG with that gain: Burges et al. 2005. mAP@R: Musgrave et al. 2020, arXiv 2003.08505.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from ranx.metrics import hit_rate, ndcg_burges, reciprocal_rank  # type: ignore[import-untyped]

from magpie.evaluation.retrieval import NDCG_GAIN
from training.evaluation.result import PerQuery

METRICS = ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "map@r")
GAIN = NDCG_GAIN

Right = NDArray[np.bool_]  # (Q, G), in the order of the ranking
Grades = NDArray[np.float64]  # (Q, G), in the order of the ranking


def per_query(right: Right, grades: Grades) -> Mapping[str, PerQuery]:
    """All METRICS. Column 0 is the best hit; `grades` is at least as high for right ones as for others.

    Raises ValueError if a query has nothing right.
    """
    if not right.any(axis=1).all():
        raise ValueError("every query needs something right in the gallery")
    places = _with_ids(-np.arange(right.shape[1], dtype=np.float64)[None].repeat(len(right), axis=0))
    binary, graded = _by_grade(right.astype(np.float64)), _by_grade(grades)
    return {
        **{f"recall@{k}": hit_rate(binary, places, k) for k in (1, 5, 10)},
        "mrr": reciprocal_rank(binary, places),
        "ndcg@10": ndcg_burges(graded, places, 10),
        "map@r": average_precision_at_r(right),
    }


def average_precision_at_r(right: Right) -> PerQuery:
    """(Q, G) -> (Q,). ranx cuts every query at the same place; here each has its own R."""
    number = right.sum(axis=1)  # (Q,) R
    rank = np.arange(1, right.shape[1] + 1)
    precision = right.cumsum(axis=1) / rank  # (Q, G)
    counted = right & (rank[None, :] <= number[:, None])
    scores: PerQuery = (precision * counted).sum(axis=1) / number
    return scores


def _with_ids(values: Grades) -> NDArray[np.float64]:
    """(Q, G) -> (Q, G, 2): the document's id, which is its place, and its value: ranx's form."""
    ids = np.broadcast_to(np.arange(values.shape[1], dtype=np.float64), values.shape)
    return np.stack([ids, values], axis=2)


def _by_grade(grades: Grades) -> NDArray[np.float64]:
    """Judgements as ranx wants them: best grade first. It drops those below 1 itself."""
    best = np.argsort(-grades, axis=1, kind="stable")
    return np.take_along_axis(_with_ids(grades), best[:, :, None], axis=1)
