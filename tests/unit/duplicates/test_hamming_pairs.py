"""The banded search finds what comparing all pairs finds, each pair once."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.duplicates.hamming_pairs import near_pairs

WORD = st.integers(0, 2**64 - 1)


def found(hashes: list[int], radius: int) -> list[tuple[int, int, int]]:
    return sorted(
        (one, other, bits)
        for part in near_pairs(np.array(hashes, np.uint64), radius)
        for one, other, bits in zip(*(values.tolist() for values in part), strict=True)
    )


def brute_force(hashes: list[int], radius: int) -> list[tuple[int, int, int]]:
    return [
        (one, other, bits)
        for one, other in combinations(range(len(hashes)), 2)
        if (bits := (hashes[one] ^ hashes[other]).bit_count()) <= radius
    ]


@st.composite
def clustered(draw: st.DrawFn) -> list[int]:
    """Hashes of which many are near: each begins as one of a few and has some bits turned."""
    seeds = draw(st.lists(WORD, min_size=1, max_size=3))
    hashes = []
    for _ in range(draw(st.integers(0, 25))):
        turned = draw(st.lists(st.integers(0, 63), max_size=9))
        value = draw(st.sampled_from(seeds))
        for bit in turned:
            value ^= 1 << bit
        hashes.append(value)
    return hashes


@given(clustered(), st.sampled_from([0, 1, 3, 6, 8, 20, 62]))
def test_all_pairs_within_the_radius_each_once(hashes: list[int], radius: int) -> None:
    assert found(hashes, radius) == brute_force(hashes, radius)


def test_many_hashes_among_which_some_are_near() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    hashes[1000:2000] = hashes[:1000]
    for _ in range(8):  # up to eight bits of each, some of them twice
        hashes[1000:2000] ^= np.uint64(1) << rng.integers(0, 64, 1000).astype(np.uint64)
    as_ints = [int(value) for value in hashes]
    expected = brute_force(as_ints, 6)
    assert len(expected) > 100
    assert found(as_ints, 6) == expected


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_for_a_pair(count: int) -> None:
    assert found([7] * count, 6) == []
