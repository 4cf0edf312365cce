"""Paired tests: the same queries were put to two models; is the difference more than chance?

All take `differences` (Q,), one number a query: the second model's metric less the first's. Queries count as
independent of each other; several photos of one product are a little less than that, so a p-value near the
limit deserves a second look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Differences = NDArray[np.float64]  # (Q,)

EXACT_UP_TO = 20  # non-zero differences: 2^20 signs are summed in some milliseconds
FLIPS = 19_999  # Monte Carlo; the smallest p-value is 1 / (FLIPS + 1)
RESAMPLES = 10_000  # of the bootstrap
POWER = 0.8  # chance with which a `detectable` difference would have been shown
_TIE = 1e-9  # sums closer than this are equal: floats add up in another order
_CHUNK = 2_000  # rows of random numbers held at a time


def sign_flip_p(differences: Differences, seed: int = 0) -> float:
    """Two-sided p-value of the paired randomisation test (Smucker, Allan, Carterette, CIKM 2007).

    If the models were alike, each difference could as well have the other sign: p is the share of all signs
    whose sum lies at least as far from 0 as the one seen. Exact where all non-zero differences are of one
    size (for 0/1 metrics that is McNemar's exact test) or are at most EXACT_UP_TO, else by FLIPS random
    signs from `seed`.
    """
    sizes = np.abs(differences[differences != 0])
    seen = abs(float(differences.sum()))
    if seen <= _TIE:
        return 1.0
    if np.ptp(sizes) <= _TIE:
        return _binomial_p(int((differences > 0).sum()), len(sizes))
    if len(sizes) <= EXACT_UP_TO:
        return float(np.mean(np.abs(_all_sums(sizes)) >= seen - _TIE))
    rng = np.random.default_rng(seed)
    extreme = 0
    for first in range(0, FLIPS, _CHUNK):
        rows = min(_CHUNK, FLIPS - first)
        signs = rng.integers(0, 2, (rows, len(sizes)), dtype=np.int8) * np.int8(2) - np.int8(1)
        extreme += int((np.abs(signs @ sizes) >= seen - _TIE).sum())
    return (extreme + 1) / (FLIPS + 1)  # what was seen is one of the signs


def bootstrap_interval(differences: Differences, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean difference, queries drawn with replacement (Efron 1979).

    Drawn as counts of each distinct value, which is the same and much faster for metrics of few values.
    """
    values, counts = np.unique(differences, return_counts=True)
    rng = np.random.default_rng(seed)
    size = len(differences)
    drawn = [rng.multinomial(size, counts / size, _CHUNK) @ values for _ in range(RESAMPLES // _CHUNK)]
    means = np.concatenate(drawn) / size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of a family of tests (Holm 1979), in the same order, each at most 1.

    Rejecting those below alpha keeps the chance of even one false alarm in the family below alpha.
    """
    order = sorted(range(len(p_values)), key=lambda row: p_values[row])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, row in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[row]))
        adjusted[row] = largest
    return adjusted


def detectable_difference(differences: Differences, alpha: float = 0.05) -> float:
    """The smallest true difference of means that so many queries would have shown, with chance POWER.

    (z(1 - alpha/2) + z(POWER)) standard errors; and never less than it takes for the sign test to reach
    `alpha` at all, which is some queries that all differ one way (six for 0.05). At most 1.
    """
    size = len(differences)
    moved = np.abs(differences[differences != 0])
    one_way = math.ceil(1 - math.log2(alpha)) * (float(moved.mean()) if len(moved) else 1.0) / size
    if size < 2:
        return 1.0
    normal = NormalDist()
    errors = float(differences.std(ddof=1)) / math.sqrt(size)
    return min(1.0, max(one_way, (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(POWER)) * errors))


def _binomial_p(up: int, moved: int) -> float:
    """Two-sided: `moved` fair coins, `up` heads. Whole numbers, so exact for any count."""
    few = min(up, moved - up)
    tail = sum(math.comb(moved, heads) for heads in range(few + 1))
    return min(1.0, tail / (1 << (moved - 1)))


def _all_sums(sizes: Differences) -> Differences:
    """Of every choice of signs, the first sign fixed: the other half mirrors it. (2^(M-1),)"""
    sums = sizes[:1]
    for size in sizes[1:]:
        sums = np.concatenate([sums + size, sums - size])
    return sums
