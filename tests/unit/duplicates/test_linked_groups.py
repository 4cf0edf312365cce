"""Groups without chains, and no link lost."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from magpie.duplicates.linked_groups import linked_groups

PAIRS = list(combinations("abcdefg", 2))
links = st.dictionaries(st.sampled_from(PAIRS), st.sampled_from([0.1, 0.5, 0.9]))


@given(links)
def test_every_two_of_a_group_are_linked_and_every_link_is_in_a_group(
    given_links: dict[tuple[str, str], float],
) -> None:
    groups = linked_groups(given_links)
    within = [{tuple(sorted(pair)) for pair in combinations(group, 2)} for group in groups]
    assert set().union(*within) == set(given_links)
    assert all(len(set(group)) == len(group) >= 2 for group in groups)
    # None stands in another, and none could take in one more.
    for group in groups:
        assert not any(set(group) < set(other) for other in groups)
    assert len({frozenset(group) for group in groups}) == len(groups)


def test_a_chain_is_two_groups() -> None:
    assert linked_groups({("a", "b"): 0.9, ("b", "c"): 0.95}) == [["b", "c"], ["a", "b"]]


def test_a_group_grows_from_its_strongest_link_by_the_weakest_of_the_others() -> None:
    strengths = {("a", "b"): 0.99, ("a", "c"): 0.9, ("b", "c"): 0.8, ("a", "d"): 0.85, ("b", "d"): 0.95}
    # c and d are not linked: d's weakest link to a and b is the stronger one.
    assert linked_groups(strengths) == [["a", "b", "d"], ["a", "c", "b"]]


def test_the_order_of_equal_links_does_not_depend_on_that_of_the_mapping() -> None:
    equal = dict.fromkeys(PAIRS[:9], 0.5)
    assert linked_groups(equal) == linked_groups(dict(reversed(equal.items())))


def test_a_thousand_that_are_all_alike_are_one_group() -> None:
    names = [f"{number:04}" for number in range(1000)]
    (group,) = linked_groups(dict.fromkeys(combinations(names, 2), 0.5))
    assert sorted(group) == names
