from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from magpie.synthesis.backgrounds import GROUNDS, background, part_of_photo


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("size", [(48, 32), (32, 48), (40, 40)])
def test_every_ground_fills_the_picture(ground, size):
    for seed in range(3):
        assert ground(np.random.default_rng(seed), *size).shape == (size[1], size[0], 3)


def test_grounds_differ_by_seed_only():
    def made(seed):
        return np.asarray(background(np.random.default_rng(seed), 64, 48))

    assert np.array_equal(made(1), made(1))
    assert not np.array_equal(made(1), made(2))


def test_a_part_of_a_photo_is_a_part_of_that_photo_and_of_the_size_asked_for():
    # Red rises from left to right, green from top to bottom: a colour says where it lies.
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[..., 0] = np.arange(200)[None, :]
    pixels[..., 1] = np.arange(100)[:, None]
    for seed in range(10):
        part = part_of_photo(np.random.default_rng(seed), Image.fromarray(pixels), 64, 48)
        assert part.size == (64, 48)
        seen = np.asarray(part, np.int16)
        wide, tall = np.ptp(seen[..., 0]) / 200, np.ptp(seen[..., 1]) / 100
        assert 0.26 < wide < 0.77
        assert 0.26 < tall < 0.77
        assert abs(wide - tall) < 0.04
        assert (seen[..., 2] == 0).all()
