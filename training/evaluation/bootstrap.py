"""How far a mean over queries can be trusted: bias-corrected and accelerated bootstrap intervals.

Efron 1987, Better Bootstrap Confidence Intervals. Queries are drawn with replacement; they count
as independent of each other, which several photos of one product are not quite: true intervals are wider.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]

RESAMPLES = 2_000
LEVEL = 0.95
_CHUNK = 4_000_000  # counts in memory at a time


def intervals(
    values: NDArray[np.float64], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Of the mean of each row: (M, Q) -> (M, 2), low and high. All rows share their resamples.

    A row that is the same throughout has an interval of no width: nothing was seen that could differ.
    """
    rows = len(values)
    means = values.mean(axis=1)
    resampled = _resampled_means(values, resamples, seed)  # (B, M)
    # Bias: how far the resampled means lie to one side of the mean. Ties, common with 0s and 1s, count half.
    below = (resampled < means - 1e-12).mean(axis=0)
    equal = (np.abs(resampled - means) <= 1e-12).mean(axis=0)
    bias = ndtri(np.clip(below + equal / 2, 1 / (2 * resamples), 1 - 1 / (2 * resamples)))
    # Acceleration: skewness of the jackknife, which for a mean is that of the values.
    off = values - means[:, None]
    spread = (off**2).sum(axis=1)
    acceleration = (off**3).sum(axis=1) / (6 * np.where(spread > 0, spread, 1.0) ** 1.5)
    found = np.empty((rows, 2))
    for row in range(rows):
        z = bias[row] + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
        at = ndtr(bias[row] + z / (1 - acceleration[row] * z))
        found[row] = np.quantile(resampled[:, row], at) if spread[row] > 0 else means[row]
    return found


def _resampled_means(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """(M, Q) -> (B, M). A resample is how often each query was drawn."""
    rng = np.random.default_rng(seed)
    size = values.shape[1]
    share = np.full(size, 1 / size)
    chunk = max(1, _CHUNK // size)
    parts = [
        rng.multinomial(size, share, min(chunk, resamples - first)) @ values.T
        for first in range(0, resamples, chunk)
    ]
    means: NDArray[np.float64] = np.concatenate(parts) / size
    return means
