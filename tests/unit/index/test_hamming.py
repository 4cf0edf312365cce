from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.index.hamming import distances, nearest, pack, rescored, search, unpack
from magpie.index.int8_vectors import FloatVectors, Int8Vectors


def bit_by_bit(first: np.ndarray, second: np.ndarray) -> int:
    return sum(
        (int(a) >> bit ^ int(b) >> bit) & 1 for a, b in zip(first, second, strict=True) for bit in range(8)
    )


def some_codes(rows: int, bits: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, bits // 8), dtype=np.uint8)


def unit_vectors(rows: int, dimension: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_bit_i_is_counted_from_the_high_end_of_its_byte() -> None:
    bits = np.zeros((2, 64), np.bool_)
    bits[0, [0, 9]] = True
    bits[1, 63] = True
    codes = pack(bits)
    assert codes[0].tolist() == [0b1000_0000, 0b0100_0000, 0, 0, 0, 0, 0, 0]
    assert codes[1].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
    assert np.array_equal(unpack(codes), bits)
    with pytest.raises(ValueError, match="60 bits"):
        pack(bits[:, :60])


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([64, 128, 256, 512, 1024, 4096]))
def test_distances_are_those_of_a_loop_over_bits(seed: int, rows: int, bits: int) -> None:
    codes = some_codes(rows, bits, seed)
    query = some_codes(1, bits, seed + 1)[0]
    assert distances(query, codes).tolist() == [bit_by_bit(query, code) for code in codes]


def test_distances_of_more_rows_than_are_done_at_once_and_of_the_opposite_code() -> None:
    codes = some_codes(20_001, 4096, 1)
    query = codes[17]
    found = distances(query, codes)
    expected = (np.unpackbits(codes, axis=1) != np.unpackbits(query)).sum(axis=1)
    assert np.array_equal(found, expected)
    assert distances(query, ~query[None]).tolist() == [4096]
    assert distances(query, codes[::2])[0] == found[0]  # rows that do not lie side by side


@pytest.mark.parametrize(("one", "others"), [(8, 16), (12, 12)])
def test_codes_that_cannot_be_compared_are_refused(one: int, others: int) -> None:
    with pytest.raises(ValueError, match=f"codes of {8 * one} and {8 * others} bits"):
        distances(np.zeros(one, np.uint8), np.zeros((3, others), np.uint8))


@given(
    st.lists(st.integers(0, 20), max_size=60),
    st.integers(0, 70),
    st.one_of(st.none(), st.sets(st.integers(0, 59))),
)
def test_the_nearest_are_those_of_a_sort_by_distance_then_row(
    values: list[int], k: int, chosen: set[int] | None
) -> None:
    rows = sorted(range(len(values)) if chosen is None else [r for r in chosen if r < len(values)])
    expected = sorted(rows, key=lambda row: (values[row], row))[:k]
    allowed = None if chosen is None else np.array(rows, np.intp)
    assert nearest(np.array(values, np.uint16), k, allowed).tolist() == expected


def test_search_with_a_shortlist_of_all_rows_is_exact() -> None:
    vectors = unit_vectors(300, 32, 3)
    query = unit_vectors(1, 32, 4)[0]
    codes = some_codes(300, 64, 5)  # whatever they are: nothing is left out
    found = search(query, codes[0], codes, FloatVectors(vectors), k=10, shortlist=300)
    assert found.tolist() == np.argsort(-(vectors @ query), kind="stable")[:10].tolist()
    even = np.arange(0, 300, 2)
    found = search(query, codes[0], codes, FloatVectors(vectors), k=10, shortlist=300, allowed=even)
    assert found.tolist() == even[np.argsort(-(vectors[even] @ query), kind="stable")[:10]].tolist()


def test_only_the_shortlist_is_rescored() -> None:
    vectors = unit_vectors(100, 32, 6)
    codes = some_codes(100, 64, 7)
    found = search(vectors[0], codes[42], codes, FloatVectors(vectors), k=5, shortlist=5)
    assert sorted(found) == sorted(nearest(distances(codes[42], codes), 5))
    assert list(found) == sorted(found, key=lambda row: -float(vectors[row] @ vectors[0]))


def test_rescoring_keeps_the_order_of_equal_rows() -> None:
    vectors = np.ones((4, 4), np.float32) / 2
    assert rescored(vectors[0], np.array([3, 1, 2]), FloatVectors(vectors), 2).tolist() == [3, 1]


def test_codes_and_vectors_of_different_rows_or_too_short_a_list_are_refused() -> None:
    codes, vectors = some_codes(3, 64, 8), FloatVectors(unit_vectors(4, 8, 9))
    with pytest.raises(ValueError, match="3 codes, 4 vectors"):
        search(vectors.values[0], codes[0], codes, vectors, k=1, shortlist=2)
    with pytest.raises(ValueError, match="shortlist 1, k 2"):
        search(vectors.values[0], codes[0], codes, FloatVectors(vectors.values[:3]), k=2, shortlist=1)


def test_int8_vectors_are_at_most_half_a_step_off() -> None:
    vectors = unit_vectors(50, 128, 10)
    vectors[7] = 0
    rounded = Int8Vectors.of(vectors)
    rows = np.arange(50)
    assert np.all(np.abs(rounded.floats(rows) - vectors) <= rounded.scales[:, None] * 0.5001)
    assert np.abs(rounded.values).max() == 127
    assert not rounded.values[7].any()
    query = unit_vectors(1, 128, 11)[0]
    chosen = np.array([3, 7, 49])
    assert np.allclose(rounded.similarities(query, chosen), rounded.floats(chosen) @ query, atol=1e-6)
    assert np.abs(rounded.similarities(query, rows) - vectors @ query).max() < 0.005
    assert (FloatVectors(vectors).bytes_per_row, rounded.bytes_per_row) == (512, 132)
