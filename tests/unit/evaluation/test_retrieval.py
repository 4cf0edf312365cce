"""Our metrics against ir-measures, the reference implementation of information retrieval."""

from __future__ import annotations

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, nDCG

from magpie.evaluation.retrieval import ndcg_at_k, recall_at_k, reciprocal_rank

IDS = [f"p{n}" for n in range(20)]
rankings = st.lists(st.sampled_from(IDS), unique=True, min_size=1, max_size=20)
grade_maps = st.dictionaries(st.sampled_from(IDS), st.integers(1, 3), min_size=1, max_size=8)


def reference(measure: object, ranking: list[str], gains: dict[str, int]) -> float:
    qrels = [ir_measures.Qrel("q", id_, gain) for id_, gain in gains.items()]
    run = [ir_measures.ScoredDoc("q", id_, float(-place)) for place, id_ in enumerate(ranking)]
    return ir_measures.calc_aggregate([measure], qrels, run)[measure]


@given(rankings, grade_maps, st.sampled_from([1, 5, 10]))
def test_equals_ir_measures(ranking: list[str], grades: dict[str, int], k: int) -> None:
    assert recall_at_k(ranking, grades, k) == pytest.approx(reference(R @ k, ranking, grades))
    assert reciprocal_rank(ranking, grades) == pytest.approx(reference(RR, ranking, grades))
    # trec_eval's gain is linear: hand it the exponential gains that ours computes itself.
    gains = {id_: 2**grade - 1 for id_, grade in grades.items()}
    assert ndcg_at_k(ranking, grades, k) == pytest.approx(reference(nDCG @ k, ranking, gains))


def test_grade_zero_is_not_gained() -> None:
    assert ndcg_at_k(["a", "b"], {"a": 0, "b": 0}, 10) == 0.0


def test_recall_without_relevant_ids_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one relevant"):
        recall_at_k(["a"], [], 1)
