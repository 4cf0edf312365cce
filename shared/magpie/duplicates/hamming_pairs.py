"""All pairs of 64-bit hashes that differ in few bits, without comparing all pairs.

By the pigeonhole (Norouzi, Punjani, Fleet 2012, "Fast search in Hamming space with multi-index hashing"): cut
into `radius` + k blocks, two hashes that differ in at most `radius` bits agree in at least k whole blocks. So
for each choice of k blocks, only hashes that agree in those are compared: within 6 bits, each one of a million
with some hundred in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Rows = NDArray[np.intp]

BITS = 64
_AGREEING = 2  # k; with 3, fewer pairs are compared, but three times as many sorts cost as much again


def near_pairs(hashes: Hashes, radius: int) -> Iterator[tuple[Rows, Rows, NDArray[np.uint8]]]:
    """(N,) -> rows, other rows and their distances, in parts: each pair within `radius` bits once, row < other.

    0 <= radius <= 62.
    """
    masks = _blocks(radius + _AGREEING)
    for chosen in combinations(range(len(masks)), _AGREEING):
        mask = np.bitwise_or.reduce(masks[list(chosen)])
        # A pair that agrees in more blocks is met several times: it counts where they are its first.
        before = masks[[block for block in range(chosen[-1]) if block not in chosen]]
        for one, other in _equal(hashes & mask):
            differing = hashes[one] ^ hashes[other]
            distance = np.bitwise_count(differing)
            counts = distance <= radius
            one, other, differing, distance = one[counts], other[counts], differing[counts], distance[counts]
            first = (differing[:, None] & before != 0).all(axis=1)
            if first.any():
                low, high = np.minimum(one, other)[first], np.maximum(one, other)[first]
                yield low, high, distance[first]


def _blocks(count: int) -> Hashes:
    """Masks of `count` blocks of about equal length that are all bits together."""
    edges = [BITS * block // count for block in range(count + 1)]
    return np.array([(1 << high) - (1 << low) for low, high in zip(edges, edges[1:])], np.uint64)


def _equal(keys: Hashes) -> Iterator[tuple[Rows, Rows]]:
    """Every pair of rows with the same key, in parts of at most N pairs."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.arange(len(keys))  # of pairs `step` apart in the sorted keys
    for step in range(1, len(keys)):
        starts = starts[: np.searchsorted(starts, len(keys) - step)]
        starts = starts[keys[starts] == keys[starts + step]]  # of these alone can longer steps be equal
        if not len(starts):
            return
        yield order[starts], order[starts + step]
