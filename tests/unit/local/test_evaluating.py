"""Merging the objects of a photo into one ranking, and the figures over queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from local.evaluating import Evaluation, figures, merged_ranking
from magpie.tables.queries import Query
from magpie.v1.reranking_pb2 import Hit
from magpie.v1.visual_search_pb2 import ObjectHits, SearchResponse


def hits(**scores: float) -> ObjectHits:
    return ObjectHits(hits=[Hit(product_id=id_, score=score) for id_, score in scores.items()])


def test_each_product_stands_at_its_best_score() -> None:
    response = SearchResponse(objects=[hits(a=0.9, b=0.2), hits(b=0.95, c=0.5, a=0.1), hits()])
    assert merged_ranking(response) == ["b", "a", "c"]


def test_figures() -> None:
    queries = [
        Query(Path("1"), {"a": 1.0}),
        Query(Path("2"), {"a": 1.0, "b": 1.0}),
        Query(Path("3"), {"z": 1.0}),
    ]
    evaluation = Evaluation(
        rankings=[["a", "b"], ["c", "a"], []],
        latencies_ms={"total": [10.0, 20.0, 40.0], "detection": [1.0, 2.0, 3.0]},
    )
    measured = figures(queries, evaluation)
    assert measured["queries"] == 3
    assert measured["recall@1"] == pytest.approx((1 + 0 + 0) / 3)
    assert measured["recall@5"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert measured["mrr"] == pytest.approx((1 + 0.5 + 0) / 3)
    ideal = 1 + 1 / np.log2(3)
    assert measured["ndcg@10"] == pytest.approx((1 + (1 / np.log2(3)) / ideal + 0) / 3)
    assert measured["latency_ms"] == {
        "total": {"p50": 20.0, "p95": 38.0, "p99": 39.6},
        "detection": {"p50": 2.0, "p95": 2.9, "p99": 2.98},
    }
