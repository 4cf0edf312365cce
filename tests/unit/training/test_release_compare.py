from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from magpie.errors import FailedPrecondition, InvalidArgument
from training.evaluation.result import SetResult
from training.release.compare import compare_results
from training.release.gate import check_reason, losses, refuse_losses, warnings

RIGHT_A = [1, 1, 1, 1, 0, 0, 0, 1]
RIGHT_B = [1, 0, 1, 1, 1, 1, 0, 0]
CATEGORIES = ("apple", "apple", "juice", "juice", "juice", "milk", "milk", "soup")


def result(right, name="shelf", categories=CATEGORIES, ndcg=None) -> SetResult:
    right = np.array(right, float)
    metrics = {"recall@1": right, "ndcg@10": right * 0.5 + 0.5 if ndcg is None else np.array(ndcg, float)}
    groups = {"category": tuple(categories)} if categories else {}
    return SetResult(name, tuple(f"q{i}.jpg" for i in range(len(right))), metrics, groups)


def many(share_a: float, share_b: float, queries: int, name: str = "large") -> tuple[SetResult, SetResult]:
    """What A has right includes what B has right, or the other way round."""
    places = np.arange(queries)
    return tuple(result(places < share * queries, name, None) for share in (share_a, share_b))  # type: ignore[return-value]


def test_figures_are_those_of_the_queries() -> None:
    comparison = compare_results([result(RIGHT_A)], [result(RIGHT_B)])
    row = next(comparison.metrics())
    assert (row.set, row.metric, row.queries) == ("shelf", "recall@1", 8)
    assert (row.mean_a, row.mean_b, row.difference) == (5 / 8, 5 / 8, 0)
    assert row.low < 0 < row.high
    assert (row.p, row.p_adjusted, row.verdict) == (1, 1, "no difference shown")
    assert row.detectable > 0.5  # eight queries show little


def test_wins_and_losses_by_category_and_by_name() -> None:
    (entry,) = compare_results([result(RIGHT_A)], [result(RIGHT_B)]).sets
    changes = [(c.category, c.queries, c.only_a, c.only_b, c.net) for c in entry.categories]
    assert changes == [
        ("apple", 2, 1, 0, -1),
        ("soup", 1, 1, 0, -1),
        ("juice", 3, 0, 1, 1),
        ("milk", 2, 0, 1, 1),
    ]
    flips = [(f.query, f.category, f.right) for f in entry.flips]
    assert flips == [
        ("q1.jpg", "apple", "A"),
        ("q7.jpg", "soup", "A"),
        ("q4.jpg", "juice", "B"),
        ("q5.jpg", "milk", "B"),
    ]


def test_verdicts_name_the_direction_after_correction() -> None:
    pairs = [many(0.8, 0.7, 300, "lost"), many(0.7, 0.8, 300, "won"), many(0.8, 0.8, 300, "same")]
    comparison = compare_results([a for a, _ in pairs], [b for _, b in pairs])
    verdicts = {(row.set, row.metric): row.verdict for row in comparison.metrics()}
    for metric in ("recall@1", "ndcg@10"):
        assert verdicts["lost", metric] == "worse"
        assert verdicts["won", metric] == "better"
        assert verdicts["same", metric] == "no difference shown"
    for row in comparison.metrics():
        assert row.p_adjusted >= row.p


def test_six_queries_that_differ_are_shown_alone_but_not_among_many_looks() -> None:
    """p = 2 / 2^6 = 0.031; times two for two tests it is 0.0625."""
    a, b = result([1] * 6 + [0] * 50, "s", None), result([0] * 56, "s", None)
    alone = next(compare_results([a], [b], ["recall@1"]).metrics())
    assert alone.p == pytest.approx(0.03125)
    assert alone.verdict == "worse"
    assert next(compare_results([a], [b]).metrics()).verdict == "no difference shown"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"queries": ("other.jpg", *result(RIGHT_B).queries[1:])},
            r"1 only of A \(such as q0.jpg\), 1 only of B",
        ),
        ({"queries": result(RIGHT_B).queries[::-1]}, "in another order"),
        ({"name": "another"}, "same sets: another, shelf"),
        ({"metrics": {"recall@5": np.ones(8)}}, "`recall@1` was not measured: did you mean `recall@5`"),
        ({"metrics": {"recall@1": np.full(8, np.nan)}}, "not one finite number a query"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        compare_results([result(RIGHT_A)], [replace(result(RIGHT_B), **change)])


def test_it_is_plain_json() -> None:
    comparison = compare_results([result(RIGHT_A)], [result(RIGHT_B)])
    again = json.loads(json.dumps(comparison.as_dict()))
    assert again["sets"][0]["metrics"][0]["verdict"] == "no difference shown"
    assert again["sets"][0]["flips"][0] == {"query": "q1.jpg", "category": "apple", "right": "A"}


def gate(share_a: float, share_b: float, queries: int):
    a, b = many(share_a, share_b, queries)
    return compare_results([a], [b])


def test_the_gate_refuses_a_loss_that_is_shown() -> None:
    found = losses(gate(0.9, 0.87, 1000))  # 3 points, within the margin, but no chance
    assert {loss.kind for loss in found} == {"shown"}
    with pytest.raises(
        FailedPrecondition, match=r"large: recall@1 0\.900 -> 0\.870 .*significantly worse"
    ) as error:
        refuse_losses(found, None)
    assert "--allow-worse" in str(error.value)
    refuse_losses(found, "the old one was trained on the test split")


def test_the_gate_refuses_a_large_fall_that_few_queries_cannot_show() -> None:
    comparison = gate(0.9, 0.8, 20)
    assert next(comparison.metrics()).verdict == "no difference shown"
    found = losses(comparison)
    assert [loss.kind for loss in found] == ["large"]  # nDCG falls by half of that, no more than the margin
    assert "20 queries are too few" in str(found[0])


def test_a_small_fall_passes_with_a_warning_of_what_is_not_ruled_out() -> None:
    comparison = gate(0.9, 0.875, 40)  # one query
    assert losses(comparison) == []
    assert "a loss of up to 0.075 is not ruled out by 40 queries" in warnings(comparison)[0]
    assert losses(gate(0.8, 0.9, 1000)) == []
    assert warnings(gate(0.8, 0.8, 1000)) == []


@pytest.mark.parametrize("reason", ["", "ok", "x y z", "because"])
def test_a_reason_is_some_words(reason: str) -> None:
    with pytest.raises(InvalidArgument, match="--allow-worse"):
        check_reason(reason)
    assert check_reason(" smaller  model for phones ") == "smaller model for phones"
