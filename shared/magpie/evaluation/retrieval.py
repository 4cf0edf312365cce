"""Retrieval metrics of one query. A ranking is a list of ids, best first, each at most once.

Manning, Raghavan, Schuetze, Introduction to Information Retrieval, ch. 8; nDCG with the exponential gain
2^grade - 1 (Burges et al. 2005), which is the one that web search uses.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

NDCG_GAIN = "2^grade - 1"


def recall_at_k(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Fraction of the relevant that stand among the first k. With one relevant id: 1 if it is there, else 0.

    Raises ValueError if nothing is relevant.
    """
    if not relevant:
        raise ValueError("recall needs at least one relevant id")
    return len(set(ranking[:k]) & set(relevant)) / len(set(relevant))


def ndcg_at_k(ranking: Sequence[str], grades: Mapping[str, float], k: int) -> float:
    """Discounted cumulative gain of the first k over that of the ideal order; 0 if every grade is 0."""
    gained = _dcg([grades.get(id_, 0.0) for id_ in ranking[:k]])
    ideal = _dcg(sorted(grades.values(), reverse=True)[:k])
    return gained / ideal if ideal > 0 else 0.0


def reciprocal_rank(ranking: Sequence[str], relevant: Collection[str]) -> float:
    """1 / place of the first relevant id; 0 if there is none."""
    return next((1.0 / place for place, id_ in enumerate(ranking, start=1) if id_ in relevant), 0.0)


def _dcg(grades: Sequence[float]) -> float:
    return math.fsum((2.0**grade - 1.0) / math.log2(place + 1) for place, grade in enumerate(grades, start=1))
