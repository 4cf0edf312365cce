"""recall@10 against what a naive count says, with ties, and while the catalogue moves on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.probe.recall import K, Recall, fused, measures_of, nearest, recall
from magpie.v1.search_pb2 import Candidate, FindCandidatesRequest

IDENTITY = {"identity": 1.0}
WIDTH = 40
Catalogue = dict[str, float]  # product id -> similarity of its one object


def candidate(product_id: str, similarity: float) -> Candidate:
    return Candidate(product_id=product_id, image_sha256="a", similarity={"identity": similarity})


def answer(catalogue: Mapping[str, float], limit: int) -> list[Candidate]:
    """What an engine that loses nothing gives, in no order."""
    best = sorted(catalogue, key=lambda id_: -catalogue[id_])[:limit]
    return [candidate(id_, catalogue[id_]) for id_ in sorted(best)]


def test_every_hit_that_is_lost_counts() -> None:
    catalogue = {f"p{rank:02d}": 1 - rank / 100 for rank in range(30)}
    found = [c for c in answer(catalogue, 30) if c.product_id not in ("p03", "p09", "p15")]
    assert recall(found, answer(catalogue, WIDTH), IDENTITY, 100, WIDTH, set()) == Recall(8, 10)
    assert recall([], answer(catalogue, WIDTH), IDENTITY, 100, WIDTH, set()) == Recall(0, 10)


def test_any_of_several_that_are_equally_near_counts() -> None:
    exact = [candidate(f"p{i}", 0.9 if i < 9 else 0.5) for i in range(30)]
    others = [*exact[:9], exact[29]]  # not the tenth that the exact answer would name
    assert recall(others, exact, IDENTITY, 10, WIDTH, set()) == Recall(10, 10)
    farther = [*exact[:9], candidate("far", 0.49)]
    assert recall(farther, [*exact, candidate("far", 0.49)], IDENTITY, 10, WIDTH, set()) == Recall(9, 10)


def test_a_candidate_given_twice_is_one_hit() -> None:
    exact = [candidate(f"p{i}", 1 - i / 100) for i in range(10)]
    assert recall([exact[0]] * 10, exact, IDENTITY, 10, WIDTH, set()) == Recall(1, 10)


def test_of_two_objects_in_one_box_the_nearer_one_is_meant() -> None:
    exact = [candidate("p0", 0.9), candidate("p0", 0.1), candidate("p1", 0.5)]
    found = [candidate("p1", 0.5), candidate("p0", 0.9)]
    assert recall(found, exact, IDENTITY, 10, WIDTH, set()) == Recall(2, 2)


def test_what_the_engine_says_of_a_similarity_does_not_count_but_orders() -> None:
    exact = [candidate(f"p{i:02d}", 1 - i / 100) for i in range(20)]
    flattered = [*exact[:9], candidate("p19", 1.0)]
    assert recall(flattered, exact, IDENTITY, 100, WIDTH, set()) == Recall(9, 10)


def test_with_more_equals_than_an_exact_answer_has_nothing_is_judged() -> None:
    exact = [candidate(f"p{i}", 0.5) for i in range(WIDTH)]
    found = [candidate(f"q{i}", 0.5) for i in range(10)]
    assert recall(found, exact, IDENTITY, 10, WIDTH, set()) == Recall()
    assert recall(found, exact[:-1], IDENTITY, 10, WIDTH, set()) == Recall(0, 10)


def test_fewer_than_ten_are_wanted_where_fewer_are_there_or_asked_for() -> None:
    catalogue = {f"p{rank}": 1 - rank / 100 for rank in range(4)}
    exact = answer(catalogue, WIDTH)
    assert recall(exact[:3], exact, IDENTITY, 100, WIDTH, set()) == Recall(3, 4)
    assert recall(exact[:2], exact, IDENTITY, 2, WIDTH, set()) == Recall(2, 2)
    assert recall([], [], IDENTITY, 100, WIDTH, set()) == Recall()


def test_without_weights_each_space_is_judged_by_itself() -> None:
    request = FindCandidatesRequest()
    assert measures_of(request, ["identity", "similar"]) == [{"identity": 1.0}, {"similar": 1.0}]
    request.weights["similar"] = 3
    assert measures_of(request, ["identity", "similar"]) == [{"similar": 3.0}]
    mixed = Candidate(similarity={"identity": 0.5, "similar": 0.25})
    assert fused(mixed, {"identity": 1, "similar": 2}) == pytest.approx(1.0)
    assert nearest([candidate("a", 0.1), candidate("b", 0.2)], IDENTITY, 1)[0].product_id == "b"


levels = st.integers(0, 6).map(lambda level: level / 8)  # few, so that many are equal
products = st.integers(0, 59).map("p{}".format)
catalogues = st.dictionaries(products, levels, max_size=60)
changes = st.dictionaries(products, st.one_of(st.none(), levels), max_size=30)  # None: deleted, or filtered


@given(catalogues, changes, st.integers(1, 50))
def test_no_change_of_the_catalogue_looks_like_a_loss(
    before: Catalogue, changed: dict[str, float | None], limit: int
) -> None:
    after = {**before, **{id_: level for id_, level in changed.items() if level is not None}}
    for id_ in [id_ for id_, level in changed.items() if level is None]:
        after.pop(id_, None)
    judged = recall(answer(before, limit), answer(after, WIDTH), IDENTITY, limit, WIDTH, changed.keys())
    assert judged.hits == judged.wanted <= K
    if not changed and len(before) < WIDTH:
        assert judged.wanted == min(K, limit, len(before))


@given(catalogues, changes, st.sets(products, max_size=10))
def test_a_loss_is_seen_through_all_changes(
    before: Catalogue, changed: dict[str, float | None], lost: set[str]
) -> None:
    """Each lost one of the first that are compared, whose next is farther, is one hit fewer."""
    after = {**before, **{id_: level for id_, level in changed.items() if level is not None}}
    for id_ in [id_ for id_, level in changed.items() if level is None]:
        after.pop(id_, None)
    given_ = [c for c in answer(before, 1000) if c.product_id not in lost]
    judged = recall(given_, answer(after, 1000), IDENTITY, 1000, 1000, changed.keys())
    stable = {id_: level for id_, level in before.items() if id_ not in changed}
    least = sorted(stable.values(), reverse=True)[: judged.wanted][-1:]
    there = sum(level >= least[0] for id_, level in stable.items() if id_ not in lost) if least else 0
    assert judged.hits == min(judged.wanted, there)
