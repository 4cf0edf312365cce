"""Scans over planes against one object, one bit at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.index import code_planes
from magpie.index.code_planes import LARGEST, factors_of, fused_distances, nearest, words_of
from magpie.index.hamming import unpack

BITS = {"identity": 128, "category": 64, "similar": 64}


def codes(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {space: rng.integers(0, 256, (count, bits // 8), np.uint8) for space, bits in BITS.items()}


@pytest.mark.parametrize("count", [1, 63, 300])
@pytest.mark.parametrize(
    "shares",
    [
        {"identity": 0.6, "category": 0.2, "similar": 0.2},
        {"identity": 1.0, "category": 0.0, "similar": 0.0},
        {"identity": 0.0, "category": 0.001, "similar": 0.999},
    ],
)
def test_distances_equal_the_naive_count(
    count: int, shares: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_planes, "_BLOCK", 100)  # so that there are several blocks, the last one not full
    stored, query = codes(count, 1), codes(1, 2)
    planes = words_of(list(stored.values()))
    words = words_of(list(query.values()))[:, 0]
    factors = factors_of(shares, BITS)
    expected = np.zeros(count, np.int64)
    for (space, _), (_, amount) in zip(
        [item for item in BITS.items() if shares[item[0]] > 0], factors, strict=True
    ):
        expected += amount * (unpack(stored[space]) != unpack(query[space])).sum(axis=1)
    assert expected.max() <= LARGEST
    assert fused_distances(planes, words, factors).tolist() == expected.tolist()


def test_a_bit_counts_by_its_spaces_share_and_size() -> None:
    factors = factors_of({"identity": 0.5, "category": 0.5, "similar": 0.0}, BITS)
    (first, identity), (second, category) = factors
    assert (first, second) == (slice(0, 2), slice(2, 3))
    assert category == pytest.approx(2 * identity, rel=0.01)
    assert 128 * identity + 64 * category == pytest.approx(LARGEST, rel=0.01)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60_000), st.integers(1, 500), st.integers(1, 2000))
def test_nearest_are_the_k_smallest(seed: int, count: int, k: int, spread: int) -> None:
    distances = np.random.default_rng(seed).integers(0, spread, count).astype(np.uint16)
    found = nearest(distances, k)
    assert len(set(found.tolist())) == len(found) == min(k, count)
    assert sorted(distances[found].tolist()) == np.sort(distances)[: len(found)].tolist()
