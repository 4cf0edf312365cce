"""Against scipy, which does the same by other ways."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from magpie.evaluation import significance
from magpie.evaluation.significance import bootstrap_interval, detectable_difference, holm, sign_flip_p


def scipy_p(differences: np.ndarray) -> float:
    """Permutation of each pair's order is a flip of its sign; exact while 2^Q is small."""
    zeros = np.zeros_like(differences)
    result = stats.permutation_test(
        (differences, zeros),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=2**13,
        alternative="two-sided",
    )
    return float(result.pvalue)


@pytest.mark.parametrize("seed", range(6))
def test_few_graded_differences_are_enumerated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    differences = rng.normal(0.2, 0.5, 12)
    differences[rng.random(12) < 0.2] = 0
    assert sign_flip_p(differences) == pytest.approx(scipy_p(differences), abs=1e-12)


def test_ties_of_sums_count_as_extreme_however_they_are_rounded() -> None:
    differences = np.array([0.1, 0.2, 0.3, -0.3, 0.1, 0.5, -0.2])
    assert sign_flip_p(differences) == pytest.approx(scipy_p(differences), abs=1e-12)


@pytest.mark.parametrize(
    ("up", "down"), [(0, 0), (1, 0), (5, 0), (6, 0), (0, 6), (30, 12), (12, 30), (700, 640)]
)
def test_right_or_wrong_is_mcnemars_exact_test(up: int, down: int) -> None:
    differences = np.array([1.0] * up + [-1.0] * down + [0.0] * 50)
    np.random.default_rng(0).shuffle(differences)
    expected = stats.binomtest(up, up + down).pvalue if up + down else 1.0
    assert sign_flip_p(differences) == pytest.approx(expected)


def test_many_differences_are_sampled_and_come_near_the_t_test() -> None:
    rng = np.random.default_rng(4)
    differences = rng.normal(0.012, 0.1, 400)
    p = sign_flip_p(differences, seed=1)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    assert p == sign_flip_p(differences, seed=1)
    assert sign_flip_p(np.abs(differences)) == pytest.approx(1 / (significance.FLIPS + 1))


def test_alike_models_are_called_different_as_seldom_as_alpha_says() -> None:
    rng = np.random.default_rng(5)
    p_values = np.array([sign_flip_p(rng.normal(0, 1, 14)) for _ in range(1000)])
    assert 0.03 < np.mean(p_values <= 0.05) < 0.07


def test_the_interval_is_that_of_the_plain_bootstrap() -> None:
    differences = np.random.default_rng(6).choice([-1.0, 0.0, 1.0], 200, p=[0.1, 0.7, 0.2])
    low, high = bootstrap_interval(differences)
    plain = stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=5000, rng=7)
    assert low == pytest.approx(plain.confidence_interval.low, abs=0.01)
    assert high == pytest.approx(plain.confidence_interval.high, abs=0.01)
    assert low < differences.mean() < high


def test_holm_steps_down() -> None:
    """By hand: 0.01 x 4, 0.02 x 3, 0.03 x 2 (no less than the one before), 0.5."""
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.4, 0.9, 0.6]) == pytest.approx([1.0, 1.0, 1.0])
    assert holm([]) == []


def test_what_is_detectable_is_shown_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(8)
    spread = rng.choice([-1.0, 0.0, 1.0], 300, p=[0.1, 0.8, 0.1])
    difference = detectable_difference(spread)
    up, down = 0.1 + difference / 2, 0.1 - difference / 2
    shown = [
        sign_flip_p(rng.choice([-1.0, 0.0, 1.0], 300, p=[down, 1 - up - down, up])) <= 0.05
        for _ in range(400)
    ]
    assert 0.7 < np.mean(shown) < 0.9


def test_without_any_difference_six_queries_would_have_to_change_sides() -> None:
    assert detectable_difference(np.zeros(60)) == pytest.approx(0.1)
    assert detectable_difference(np.zeros(3)) == 1.0
    assert sign_flip_p(np.ones(6)) < 0.05 < sign_flip_p(np.ones(5))
