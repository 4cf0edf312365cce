"""Products in other colours."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest

from training.datasets.recolour import LEAST, draw_turn, turned


def test_a_third_of_a_turn_makes_red_green_and_three_thirds_change_nothing() -> None:
    red = np.array([[[200, 0, 0]]], np.uint8)
    third = 2 * math.pi / 3
    assert turned(red, third).tolist() == [[[0, 200, 0]]]
    assert turned(turned(turned(red, third), third), third).tolist() == red.tolist()


def test_grey_stays_grey_and_brightness_stays() -> None:
    rng = np.random.default_rng(0)
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    muted = rng.integers(90, 160, (500, 3)).astype(np.uint8)  # far enough from clipping
    for angle in (LEAST, 2.0, 4.0):
        assert np.abs(turned(grey, angle).astype(int) - grey).max() <= 1
        change = turned(muted, angle).astype(float).mean(axis=1) - muted.mean(axis=1)
        assert np.abs(change).max() < 1


def test_hues_turn_by_the_angle() -> None:
    for angle in (LEAST, 2.5, 5.0):
        r, g, b = turned(np.array([170, 110, 90], np.uint8), angle) / 255.0
        before, after = (
            colorsys.rgb_to_hsv(170 / 255, 110 / 255, 90 / 255)[0],
            colorsys.rgb_to_hsv(r, g, b)[0],
        )
        # The hexagon of hues is not the circle that we turn on: they differ by a few degrees.
        assert (after - before) % 1 == pytest.approx(angle / (2 * math.pi), abs=0.03)


def test_a_draw_changes_the_colours_for_certain() -> None:
    rng = np.random.default_rng(3)
    angles = [draw_turn(rng) for _ in range(200)]
    assert min(angles) >= LEAST and max(angles) <= 2 * math.pi - LEAST
