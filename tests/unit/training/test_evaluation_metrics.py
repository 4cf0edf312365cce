"""Metrics against ir-measures, naive loops, serving's own and pytorch-metric-learning's."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
import torch
from ir_measures import RR, ScoredDoc, Success, nDCG
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from magpie.evaluation.retrieval import ndcg_at_k, reciprocal_rank
from training.evaluation.metrics import METRICS, average_precision_at_r, per_query


def random_rankings(seed: int, queries: int = 40, gallery: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Right (Q, G) and grades (Q, G) in the order of the ranking; each query has something right."""
    rng = np.random.default_rng(seed)
    right = rng.random((queries, gallery)) < rng.uniform(0.03, 0.5, (queries, 1))
    right[np.arange(queries), rng.integers(0, gallery, queries)] = True
    related = rng.random((queries, gallery)) < 0.3
    return right, np.where(right, 3.0, np.where(related, 1.0, 0.0))


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_ir_measures(seed: int) -> None:
    right, grades = random_rankings(seed)
    qrels_right = [ir_measures.Qrel(str(q), str(d), int(right[q, d])) for q, d in np.ndindex(*right.shape)]
    qrels_graded = [ir_measures.Qrel(str(q), str(d), int(grades[q, d])) for q, d in np.ndindex(*right.shape)]
    run = [ScoredDoc(str(q), str(d), -float(d)) for q, d in np.ndindex(*right.shape)]
    gains = {0: 0, 1: 1, 3: 7}  # 2^grade - 1
    wanted = {
        **{f"recall@{k}": (Success @ k, qrels_right) for k in (1, 5, 10)},
        "mrr": (RR, qrels_right),
        "ndcg@10": (nDCG(gains=gains) @ 10, qrels_graded),
    }
    found = per_query(right, grades)
    assert set(found) == set(METRICS)
    for name, (measure, qrels) in wanted.items():
        theirs = {int(row.query_id): row.value for row in ir_measures.iter_calc([measure], qrels, run)}
        np.testing.assert_allclose(found[name], [theirs[q] for q in range(len(right))], atol=1e-6)


def test_metrics_are_those_of_the_library_that_serves() -> None:
    right, grades = random_rankings(7)
    found = per_query(right, grades)
    ids = [str(d) for d in range(right.shape[1])]
    for q in range(len(right)):
        relevant = [ids[d] for d in np.flatnonzero(right[q])]
        assert found["mrr"][q] == pytest.approx(reciprocal_rank(ids, relevant))
        assert found["recall@5"][q] == float(any(d in relevant for d in ids[:5]))
        graded = dict(zip(ids, grades[q], strict=True))
        assert found["ndcg@10"][q] == pytest.approx(ndcg_at_k(ids, graded, 10))


def test_map_at_r_is_that_of_pytorch_metric_learning() -> None:
    rng = np.random.default_rng(3)
    vectors, labels = rng.normal(size=(60, 8)).astype(np.float32), rng.integers(0, 6, 60)
    theirs = AccuracyCalculator(
        include=("mean_average_precision_at_r",), k="max_bin_count", device=torch.device("cpu")
    ).get_accuracy(torch.from_numpy(vectors), torch.from_numpy(labels))
    distance = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    order = distance.argsort(axis=1)[:, :-1]  # without itself
    ours = average_precision_at_r(labels[order] == labels[:, None]).mean()
    assert ours == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)


def test_map_at_r_is_the_naive_loop() -> None:
    right, _ = random_rankings(5)
    for row, value in zip(right, average_precision_at_r(right), strict=True):
        total = int(row.sum())
        precisions = [row[: i + 1].mean() for i in range(total) if row[i]]
        assert value == pytest.approx(sum(precisions) / total)


def test_a_query_without_anything_right_is_refused() -> None:
    with pytest.raises(ValueError, match="something right"):
        per_query(np.array([[True, False], [False, False]]), np.zeros((2, 2)))
