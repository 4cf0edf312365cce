"""All pairs of 64-bit hashes that differ in few bits, without comparing all pairs.

By the pigeonhole (Norouzi, Punjani, Fleet 2012, "Fast search in Hamming space with multi-index hashing"): cut
into `radius` + k blocks, two hashes that differ in at most `radius` bits agree in at least k whole blocks. So
for each choice of k blocks only hashes that agree in those are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Rows = NDArray[np.intp]

BITS = 64
_AGREEING = 2  # k; with 3, fewer pairs are compared, but three times as many sorts cost as much again


def near_pairs(hashes: Hashes, radius: int) -> Iterator[tuple[Rows, Rows, NDArray[np.uint8]]]:
    """(N,) -> rows, other rows and their distances, in parts: each pair within `radius` once, row < other.

    0 <= radius <= 62.
    """
    masks = _blocks(radius + _AGREEING)
    for chosen in combinations(range(len(masks)), _AGREEING):
        # A pair that agrees in more blocks is met several times: it counts where they are its first.
        before = masks[[block for block in range(chosen[-1]) if block not in chosen]]
        for one, other in _equal(hashes & np.bitwise_or.reduce(masks[list(chosen)])):
            near = np.flatnonzero(np.bitwise_count(hashes[one] ^ hashes[other]) <= radius)
            if not len(near):
                continue
            differing = hashes[one[near]] ^ hashes[other[near]]
            first = (differing[:, None] & before != 0).all(axis=1)
            near, distance = near[first], np.bitwise_count(differing[first])
            yield np.minimum(one[near], other[near]), np.maximum(one[near], other[near]), distance


def _blocks(count: int) -> Hashes:
    """Masks of `count` blocks of about equal length that are all bits together."""
    edges = [BITS * block // count for block in range(count + 1)]
    return np.array([(1 << high) - (1 << low) for low, high in pairwise(edges)], np.uint64)


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
