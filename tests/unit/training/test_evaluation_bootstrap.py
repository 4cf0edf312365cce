"""Intervals: how often they hold the truth, and what scipy gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from training.evaluation.bootstrap import intervals


def test_nine_of_ten_intervals_hold_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    for true, values in (
        (0.8, (rng.random((400, 120)) < 0.8).astype(float)),
        (0.5, rng.exponential(0.5, (400, 120))),  # skewed
    ):
        found = intervals(values, level=0.9, resamples=1_000)
        covered = np.mean((found[:, 0] <= true) & (true <= found[:, 1]))
        assert covered == pytest.approx(0.9, abs=0.05)


def test_intervals_are_those_of_scipy() -> None:
    values = np.random.default_rng(1).exponential(1, (2, 150))
    ours = intervals(values, resamples=20_000)
    for row, bounds in zip(values, ours, strict=True):
        theirs = bootstrap(
            (row,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2), batch=1_000
        ).confidence_interval
        np.testing.assert_allclose(bounds, [theirs.low, theirs.high], atol=0.02)


def test_the_same_seed_gives_the_same_interval_whatever_stands_beside() -> None:
    values = np.random.default_rng(1).random((3, 50))
    together, alone = intervals(values, seed=4), intervals(values[1:2], seed=4)
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-12)
    assert not np.allclose(alone, intervals(values[1:2], seed=5), rtol=1e-6)


def test_a_row_without_variety_has_no_width() -> None:
    assert intervals(np.ones((1, 20))).tolist() == [[1.0, 1.0]]
    assert intervals(np.array([[0.5]])).tolist() == [[0.5, 0.5]]
