"""Logistic curves through right and wrong pairs (Platt 1999), near a given one where pairs are few.

P(right) = 1 / (1 + exp(-(slope * x + intercept))), the slope at least 0. A curve is (slope, intercept).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]  # (N,)
Curves = NDArray[np.float64]  # (C, 2), or (2,) one of them
_STEPS, _HALVINGS = 100, 40
_ENOUGH = 1e-9  # gain of a step, relative to the loss
_RIDGE = 1e-9  # keeps the curvature invertible


def probability(curve: Curves, x: Values) -> Values:
    """By the curve of each value, (N, 2), or one for all, (2,). (N,) -> (N,)"""
    exponent = np.clip(curve[..., 0] * x + curve[..., 1], -500, 500)
    return np.asarray(1.0 / (1.0 + np.exp(-exponent)), np.float64)


def fit(x: Values, right: NDArray[np.bool_]) -> Curves:
    """The most likely curve, (2,), to Platt's targets.

    These are (N+ + 1) / (N+ + 2) for right pairs and 1 / (N- + 2) for wrong ones: they keep the slope finite
    where a threshold parts right from wrong.
    """
    positive = int(right.sum())
    negative = len(right) - positive
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))
    start = np.array([0.0, np.log((positive + 1) / (negative + 1))])
    return np.asarray(_minimised(x, target, np.zeros(len(x), np.intp), 1, start, 0.0)[0])


def fit_near(
    x: Values, right: NDArray[np.bool_], group: NDArray[np.intp], groups: int, prior: Curves, strength: float
) -> Curves:
    """The most likely curve of each group, (C, 2), under a Gaussian prior around the curve `prior` (2,).

    A group's loss grows by strength / 2 * |curve - prior|^2. `x` is standardised, so that the prior holds
    slope and intercept alike. `group` (N,) numbers the groups; the curve of one without pairs is the prior.
    """
    return _minimised(x, right.astype(np.float64), group, groups, prior, strength)


def _minimised(
    x: Values, target: Values, group: NDArray[np.intp], groups: int, prior: Curves, strength: float
) -> Curves:
    curves = _newton(x, target, group, np.tile(prior, (groups, 1)), prior, strength)
    falling = curves[:, 0] < 0
    if falling.any():
        # The loss is convex: with a falling slope forbidden, the best lies at slope 0.
        flat = np.where(falling[:, None], np.array([0.0, prior[1]]), curves)
        level = _newton(np.where(falling[group], 0.0, x), target, group, flat, prior, strength)
        curves[falling] = np.stack([np.zeros(falling.sum()), level[falling, 1]], axis=1)
    return curves


def _newton(
    x: Values, target: Values, group: NDArray[np.intp], start: Curves, prior: Curves, strength: float
) -> Curves:
    """Newton's method, all groups at once, each with halved steps of its own. (C, 2) -> (C, 2)"""
    groups = len(start)

    def summed(values: Values) -> Values:
        return np.asarray(np.bincount(group, values, groups), np.float64)

    def losses(curves: Curves) -> Values:
        z = curves[group, 0] * x + curves[group, 1]
        away = ((curves - prior) ** 2).sum(axis=1)
        return np.asarray(summed(np.logaddexp(0.0, z) - target * z) + strength / 2 * away, np.float64)

    curves, now = start.copy(), losses(start)
    for _ in range(_STEPS):
        p = probability(curves[group], x)
        spread = p * (1 - p)
        gradient = np.stack([summed((p - target) * x), summed(p - target)], axis=1)
        gradient += strength * (curves - prior)
        own = strength + _RIDGE
        a, b, c = summed(spread * x * x) + own, summed(spread * x), summed(spread) + own
        determinant = a * c - b * b
        step = np.stack([c * gradient[:, 0] - b * gradient[:, 1], a * gradient[:, 1] - b * gradient[:, 0]], 1)
        step /= determinant[:, None]
        after = losses(curves - step)
        for _ in range(_HALVINGS):
            worse = after > now
            if not worse.any():
                break
            step[worse] /= 2
            after = losses(curves - step)
        step[after > now] = 0.0
        after = np.minimum(after, now)
        curves -= step
        gained, now = now - after, after
        if (gained <= _ENOUGH * np.maximum(1.0, np.abs(now))).all():
            break
    return curves
