from __future__ import annotations

import numpy as np
import pytest

from magpie.synthesis.backgrounds import GROUNDS, background


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
