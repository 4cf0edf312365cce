"""The first pass of a compact search: Hamming distances of every object's codes, fused over the spaces.

Codes of all spaces lie in planes, (W, N) uint64: plane w has word w of every object, the words of one space
after those of another. A scan goes over the planes in blocks that stay in the cache, so that each word is
read
from memory once, whatever the weights; a space without weight is not read at all.

Bits are compared as sign random projections (Charikar 2002): among near neighbours the cosine falls about
linearly with the share of the bits that differ, so the weighted mean of those shares ranks as the weighted
mean of the cosines does, up to what the second pass puts right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from magpie.index.hamming import WORD, Codes

Planes = NDArray[np.uint64]  # (W, N)
Words = NDArray[np.uint64]  # (W,), one object's
Fused = NDArray[np.uint16]  # (N,), 0: equal in every bit; LARGEST: different in every bit
Rows = NDArray[np.intp]

LARGEST = 65535
_BLOCK = 32768  # objects; a plane's share is 256 KB, which fits the second-level cache
_SAMPLED = 16384  # distances from which a radius is guessed


def words_of(codes: Sequence[Codes]) -> Planes:
    """Codes of each space, (N, bits / 8) each, as planes (W, N)."""
    return np.concatenate([np.ascontiguousarray(space).view(np.uint64).T for space in codes])


def factors_of(shares: Mapping[str, float], bits: Mapping[str, int]) -> list[tuple[slice, int]]:
    """What one differing bit counts in each space that has a share: its planes, and the amount.

    `bits`: space -> bits, in the order of the planes. The amounts are whole, so that sums stay exact.
    """
    factors = []
    first = 0
    scale = LARGEST / sum(shares[space] for space in bits)
    for space, number in bits.items():
        planes = slice(first, first + number // WORD)
        first = planes.stop
        amount = int(shares[space] * scale / number)
        if shares[space] > 0:
            factors.append((planes, max(amount, 1)))
    return factors


def fused_distances(planes: Planes, query: Words, factors: Sequence[tuple[slice, int]]) -> Fused:
    """(W, N), (W,) -> (N,): for each space the differing bits times its amount, added up."""
    count = planes.shape[1]
    fused = np.empty(count, np.uint16)
    size = min(_BLOCK, count)
    differing, ones = np.empty(size, np.uint64), np.empty(size, np.uint8)
    of_space = np.empty(size, np.uint16)
    for first in range(0, count, _BLOCK):
        block = fused[first : first + _BLOCK]
        differing, ones, of_space = (array[: len(block)] for array in (differing, ones, of_space))
        for number, (words, amount) in enumerate(factors):
            total = block if number == 0 else of_space
            for plane in range(words.start, words.stop):
                np.bitwise_xor(planes[plane, first : first + _BLOCK], query[plane], out=differing)
                np.bitwise_count(differing, out=ones)
                if plane == words.start:
                    total[:] = ones
                else:
                    total += ones
            total *= np.uint16(amount)
            if number:
                block += of_space
    return fused


def nearest(fused: Fused, k: int) -> Rows:
    """The k rows of smallest distance, in any order. (N,) -> (min(k, N),)

    A sample tells a radius that holds about twice as many, so that only those few are partitioned.
    """
    if len(fused) <= k:
        return np.arange(len(fused))
    step = max(1, len(fused) // _SAMPLED)
    sample = fused[::step]
    rank = 2 * k // step + 8
    if rank < len(sample) // 2:
        radius = np.partition(sample, rank)[rank]
        within = np.flatnonzero(fused <= radius)
        if len(within) >= k:
            return within[np.argpartition(fused[within], k - 1)[:k]]
    return np.argpartition(fused, k - 1)[:k]
