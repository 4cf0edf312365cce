"""The ranking order, term by term, against naive loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.errors import FailedPrecondition, FilterSyntax, InvalidArgument
from magpie.ranking.calibration import Calibration, Curve, SpaceCalibration
from magpie.ranking.config import checksum, default_config, validate
from magpie.ranking.near_duplicates import representatives
from magpie.ranking.rank import rank
from magpie.v1.product_pb2 import AttributeValue, Product
from magpie.v1.ranking_config_pb2 import Boost, Fusion, RankingConfig
from magpie.v1.search_pb2 import Candidate

SPACES = ("identity", "category", "similar")
cosines = st.floats(-1, 1, width=32)


def candidate(product_id: str, identity: float, category: float = 0.0, similar: float = 0.0) -> Candidate:
    return Candidate(
        product_id=product_id,
        similarity={"identity": identity, "category": category, "similar": similar},
        identity=np.array([1, 0], "<f4").tobytes(),
    )


def catalogue(*ids: str, **fields: object) -> dict[str, Product]:
    return {id_: Product(id=id_, title=id_.upper(), **fields) for id_ in ids}


def config(**fields: object) -> RankingConfig:
    return validate(RankingConfig(**fields), SPACES, calibrated="min_probability" in fields)


CURVES = Calibration(
    "0" * 64,
    {
        "identity": SpaceCalibration(
            Curve(8.0, -4.0, 100, 30), {"Juice": Curve(20.0, -16.0, 60, 9)}, 10.0, 0.3, 0.02
        )
    },
)


def logistic(similarity: float, category: str) -> float:
    slope, intercept = (20.0, -16.0) if category == "Juice" else (8.0, -4.0)
    return 1 / (1 + math.exp(-(slope * similarity + intercept)))


candidate_lists = st.lists(
    st.builds(candidate, st.sampled_from("abcdef"), cosines, cosines, cosines), min_size=1, max_size=25
)


@given(candidate_lists, st.tuples(*[st.floats(0.1, 5)] * 3))
def test_weighted_equals_the_naive_loop(candidates: list[Candidate], weights: tuple[float, ...]) -> None:
    rules = config(fusion=Fusion(weights=dict(zip(SPACES, weights, strict=True))))
    best: dict[str, float] = {}
    for each in candidates:
        score = sum(each.similarity[s] * w for s, w in zip(SPACES, weights, strict=True)) / sum(weights)
        best[each.product_id] = max(best.get(each.product_id, -9.0), score)
    hits = rank(rules, candidates, catalogue(*"abcdef"), limit=100)
    assert {hit.product_id: hit.score for hit in hits} == pytest.approx(best)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@given(candidate_lists, st.floats(1, 100))
def test_rrf_equals_the_naive_loop(candidates: list[Candidate], k: float) -> None:
    weights = {"identity": 2.0, "category": 1.0}
    rules = config(fusion=Fusion(method=Fusion.METHOD_RRF, weights=weights, rrf_k=k))
    best: dict[str, float] = {}
    for each in candidates:
        score = 0.0
        for space, weight in weights.items():
            rivals = {
                other.product_id
                for other in candidates
                if other.product_id != each.product_id and other.similarity[space] > each.similarity[space]
            }
            score += weight / 3.0 * (k + 1) / (k + 1 + len(rivals))
        best[each.product_id] = max(best.get(each.product_id, -9.0), score)
    hits = rank(rules, candidates, catalogue(*"abcdef"), limit=100)
    assert {hit.product_id: hit.score for hit in hits} == pytest.approx(best)


@given(candidate_lists, st.sampled_from([Fusion.METHOD_WEIGHTED, Fusion.METHOD_RRF]))
def test_reasons_sum_to_the_score(candidates: list[Candidate], method: Fusion.Method) -> None:
    rules = config(
        fusion=Fusion(method=method, weights=dict.fromkeys(SPACES, 1.0)),
        boosts=[Boost(filter="id = 'a'", weight=0.5, name="ours"), Boost(filter="price < 3", weight=-0.2)],
    )
    products = catalogue(*"abcdef", price=2.0)
    for hit in rank(rules, candidates, products, limit=100, explain=True):
        assert sum(reason.value for reason in hit.reasons) == pytest.approx(hit.score)
        assert ("boost: ours" in {reason.term for reason in hit.reasons}) == (hit.product_id == "a")


def test_spaces_are_summed_in_their_own_order() -> None:
    """A protobuf map has another order in each process: pages would differ in the last bit of a score."""
    spaces = "abcdefgh"
    rules = RankingConfig(fusion=Fusion(method=Fusion.METHOD_WEIGHTED, weights=dict.fromkeys(spaces, 1.0)))
    found = Candidate(product_id="p", similarity=dict.fromkeys(spaces, 0.5))
    (hit,) = rank(rules, [found], catalogue("p"), limit=1, explain=True)
    assert [reason.term for reason in hit.reasons] == list(spaces)


def test_a_boost_reorders() -> None:
    candidates = [candidate("a", 0.9), candidate("b", 0.8)]
    products = catalogue("a") | catalogue("b", attributes={"brand": AttributeValue(text="ours")})
    plain = rank(config(), candidates, products, 10)
    boosted = rank(config(boosts=[Boost(filter="brand = 'ours'", weight=0.3)]), candidates, products, 10)
    assert [hit.product_id for hit in plain] == ["a", "b"]
    assert [hit.product_id for hit in boosted] == ["b", "a"]


def test_the_configs_filter_holds() -> None:
    products = catalogue("a", stock=0.0) | catalogue("b", stock=2.0)
    hits = rank(config(filter="stock > 0"), [candidate("a", 0.9), candidate("b", 0.1)], products, 10)
    assert [hit.product_id for hit in hits] == ["b"]


def test_variants_stand_behind_the_best() -> None:
    products = catalogue("a", "b", group="shirt") | catalogue("c")
    candidates = [candidate("a", 0.5), candidate("b", 0.9), candidate("c", 0.7)]
    hits = rank(config(group_variants=True), candidates, products, 10)
    assert [(hit.product_id, list(hit.stands_for)) for hit in hits] == [("b", ["a"]), ("c", [])]


def test_near_duplicates_carry_their_variants() -> None:
    products = catalogue("a", "b", group="shirt") | catalogue("c")
    candidates = [candidate("a", 0.5), candidate("b", 0.8), candidate("c", 0.9)]
    hits = rank(config(group_variants=True, near_duplicate_similarity=0.95), candidates, products, 10)
    assert [(hit.product_id, list(hit.stands_for)) for hit in hits] == [("c", ["b", "a"])]


def test_the_cut_off_counts_boosts() -> None:
    products = catalogue("a", "b")
    rules = config(
        fusion=Fusion(weights={"identity": 1}), boosts=[Boost(filter="id = 'b'", weight=0.4)], min_score=0.6
    )
    hits = rank(rules, [candidate("a", 0.5), candidate("b", 0.3)], products, 10)
    assert [hit.product_id for hit in hits] == ["b"]


@given(candidate_lists, st.floats(0, 1), st.floats(0, 1))
def test_probabilities_and_their_cut_off_equal_the_naive_loop(
    candidates: list[Candidate], cut_off: float, weight: float
) -> None:
    products = catalogue(*"abc", category="Juice") | catalogue("d", "e", category="Tea") | catalogue("f")
    weights = Fusion(weights={"identity": weight, "similar": 1})
    expected = {}
    for id_, product in products.items():
        own = [each.similarity["identity"] for each in candidates if each.product_id == id_]
        if own:  # of any of its objects, not only of the one with the best score
            expected[id_] = logistic(max(own), product.category)
    everything = rank(config(fusion=weights), candidates, products, 100, calibration=CURVES)
    assert {hit.product_id: hit.probability for hit in everything} == pytest.approx(expected)
    rules = config(fusion=weights, min_probability=cut_off)
    kept = rank(rules, candidates, products, 100, calibration=CURVES)
    assert kept == [hit for hit in everything if hit.probability >= cut_off]


def test_without_a_calibration_hits_have_no_probability() -> None:
    (hit,) = rank(config(), [candidate("a", 0.9)], catalogue("a"), 10)
    assert not hit.HasField("probability")
    assert hit.score == rank(config(), [candidate("a", 0.9)], catalogue("a"), 10, calibration=CURVES)[0].score


def test_a_variant_that_passes_the_cut_off_is_shown_though_a_better_ranked_one_fails() -> None:
    products = catalogue("a", "b", "c", group="shirt")
    candidates = [
        candidate("a", 0.2, similar=0.9),
        candidate("b", 0.8, similar=0.1),
        candidate("c", 0.79, similar=0.1),
    ]
    rules = {"fusion": Fusion(weights={"identity": 1, "similar": 3}), "group_variants": True}
    without = rank(config(**rules), candidates, products, 10, calibration=CURVES)
    cut = rank(config(**rules, min_probability=0.5), candidates, products, 10, calibration=CURVES)
    assert [(hit.product_id, list(hit.stands_for)) for hit in without] == [("a", ["b", "c"])]
    assert [(hit.product_id, list(hit.stands_for)) for hit in cut] == [("b", ["c"])]


def test_a_cut_off_by_probability_needs_a_calibrated_bundle() -> None:
    with pytest.raises(FailedPrecondition, match="min_probability: the bundle in use has no calibration"):
        validate(RankingConfig(min_probability=0.5), SPACES)
    assert validate(RankingConfig(min_probability=0.0), SPACES, calibrated=True).HasField("min_probability")


def test_ties_fall_to_the_smaller_id() -> None:
    candidates = [candidate("b", 0.5), candidate("a", 0.5)]
    assert [hit.product_id for hit in rank(config(), candidates, catalogue("a", "b"), 10)] == ["a", "b"]


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.floats(0.1, 1.0))
def test_near_duplicates_equal_the_naive_loop(seed: int, n: int, threshold: float) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = list(np.random.default_rng(seed + 1).permutation(n))
    kept: dict[int, list[int]] = {}
    similarity = vectors[order] @ vectors[order].T
    for place, row in enumerate(order):
        home = next((k for k in kept if similarity[order.index(k), place] >= threshold), None)
        if home is None:
            kept[int(row)] = []
        else:
            kept[home].append(int(row))
    assert representatives(vectors, order, threshold) == kept


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fusion": Fusion(weights={"colour": 1})}, r"fusion.weights\['colour'\].*no such space"),
        ({"fusion": Fusion(weights={"identity": -1})}, "at least 0"),
        ({"fusion": Fusion(weights={"identity": 0})}, "greater than 0"),
        ({"fusion": Fusion(weights={"identity": float("nan")})}, "finite"),
        ({"fusion": Fusion(method=Fusion.METHOD_RRF, rrf_k=0.5)}, "rrf_k"),
        ({"boosts": [Boost(weight=0.5)]}, r"boosts\[0\].filter"),
        ({"boosts": [Boost(filter="id = 'a'", weight=7)]}, r"boosts\[0\].weight"),
        ({"boosts": [Boost(filter="id = 'a'")] * 51}, "at most 50"),
        ({"near_duplicate_similarity": 1.5}, "near_duplicate_similarity"),
        ({"min_score": 3}, "min_score"),
        ({"min_probability": 1.5}, r"min_probability: must lie in \[0, 1\]"),
        ({"min_probability": float("nan")}, "min_probability"),
    ],
)
def test_a_bad_config_is_refused_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        config(**fields)


def test_a_bad_filter_is_refused_with_its_position() -> None:
    with pytest.raises(FilterSyntax) as caught:
        config(filter="price < ")
    assert caught.value.position == 8


def test_checksum_knows_the_rules_and_nothing_else() -> None:
    same = default_config()
    same.version = 7
    other = default_config()
    other.min_score = 0.1
    assert checksum(same) == checksum(default_config()) != checksum(other)
