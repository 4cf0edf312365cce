"""Search by binary codes: the nearest by Hamming distance first, then those few again by their vectors.

A code is (bits / 8,) uint8; bit i of the code is bit 7 - i % 8 of byte i // 8 (big-endian, as in
`numpy.packbits`). A scan of all codes finds a shortlist, which the vectors (float32 or int8) put in order.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]  # (N, bits / 8)
Distances = NDArray[np.uint16]  # bits in which two codes differ
Rows = NDArray[np.intp]

WORD = 64  # a code is compared in words of so many bits, so its length is a multiple of it
LARGEST_BITS = 4096  # uint16 distances would reach further; nobody needs it
_ROWS_AT_ONCE = 8192  # bounds the memory, and what lies between two steps fits in the cache


class Rescorer(Protocol):
    """Vectors that can be compared with a query: FloatVectors, Int8Vectors."""

    def __len__(self) -> int: ...

    def similarities(self, query: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
        """(d,), (R,) -> (R,) cosines."""
        ...


def pack(bits: NDArray[np.bool_]) -> Codes:
    """(N, bits) -> (N, bits / 8). Raises ValueError unless bits is a multiple of 8."""
    if bits.shape[-1] % 8:
        raise ValueError(f"{bits.shape[-1]} bits do not fill bytes")
    return np.packbits(bits, axis=-1)


def unpack(codes: Codes) -> NDArray[np.bool_]:
    """(N, bits / 8) -> (N, bits)."""
    return np.unpackbits(codes, axis=-1).astype(np.bool_)


def distances(query: Codes, codes: Codes) -> Distances:
    """(bits / 8,), (N, bits / 8) -> (N,). Raises ValueError unless both have as many bits, in whole words."""
    if query.shape != codes.shape[1:] or 8 * query.shape[0] % WORD:
        raise ValueError(f"codes of {8 * query.shape[0]} and {8 * codes.shape[1]} bits")
    words = np.ascontiguousarray(codes).view(np.uint64)  # (N, W)
    query_words = np.ascontiguousarray(query).view(np.uint64)  # (W,)
    differing = np.empty(len(words), np.uint16)
    for first in range(0, len(words), _ROWS_AT_ONCE):
        counts = np.bitwise_count(words[first : first + _ROWS_AT_ONCE] ^ query_words)  # (R, W) uint8
        part = differing[first : first + _ROWS_AT_ONCE]
        part[:] = counts[:, 0]
        for word in range(1, counts.shape[1]):  # faster than a sum over so short an axis
            part += counts[:, word]
    return differing


def nearest(differing: Distances, k: int, allowed: Rows | None = None) -> Rows:
    """The k rows of smallest distance, nearest first; of equal ones, the lower row. (N,) -> (min(k, N),)

    `allowed`, ascending row numbers, leaves out all others.
    """
    candidates = differing if allowed is None else differing[allowed]
    k = min(k, len(candidates))
    if k <= 0:
        return np.empty(0, np.intp)
    # Distances are small integers: counting them finds the radius that holds k without sorting.
    within = np.cumsum(np.bincount(candidates))  # [r]: how many lie within r
    found = np.flatnonzero(candidates <= np.searchsorted(within, k))
    found = found[np.argsort(candidates[found], kind="stable")[:k]]
    return found if allowed is None else allowed[found]


def rescored(query: NDArray[np.float32], shortlist: Rows, vectors: Rescorer, k: int) -> Rows:
    """The k rows of the shortlist most similar to `query` (d,), best first; of equal ones, the earlier."""
    order = np.argsort(-vectors.similarities(query, shortlist), kind="stable")
    return shortlist[order[:k]]


def search(
    query: NDArray[np.float32],
    code: Codes,
    codes: Codes,
    vectors: Rescorer,
    *,
    k: int,
    shortlist: int,
    allowed: Rows | None = None,
) -> Rows:
    """k rows like `query` (d,), whose code is `code`: `shortlist` of them by Hamming distance, then rescored.

    `codes` and `vectors` are of the same rows. Raises ValueError if they are not, or shortlist < k.
    """
    if len(codes) != len(vectors) or shortlist < k:
        raise ValueError(f"{len(codes)} codes, {len(vectors)} vectors, shortlist {shortlist}, k {k}")
    return rescored(query, nearest(distances(code, codes), shortlist, allowed), vectors, k)
