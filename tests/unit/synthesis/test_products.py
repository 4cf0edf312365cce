from __future__ import annotations

import numpy as np
import pytest

from magpie.errors import InvalidArgument
from magpie.synthesis.products import FAMILIES, SHOP_FAMILIES, TRAINING_FAMILIES, render


def test_shop_and_training_share_no_family_and_leave_none_out():
    assert not set(SHOP_FAMILIES) & set(TRAINING_FAMILIES)
    assert set(SHOP_FAMILIES) | set(TRAINING_FAMILIES) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_product_is_opaque_inside_clear_outside_and_not_cut_off(family):
    for seed in range(4):
        alpha = np.asarray(render(family, seed, 96))[..., 3]
        assert 0.08 < (alpha > 200).mean() < 0.8
        border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert border.max() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_seed_and_variant_decide_the_picture(family):
    first = np.asarray(render(family, 1, 64)).astype(int)
    assert np.array_equal(first, np.asarray(render(family, 1, 64)))
    assert np.abs(first - np.asarray(render(family, 2, 64))).mean() > 2
    variant = np.asarray(render(family, 1, 64, variant=1)).astype(int)
    assert np.array_equal(first[..., 3], variant[..., 3])  # the same shape
    inside = first[..., 3] == 255
    assert np.abs(first[inside] - variant[inside]).mean() > 5  # in other colours


def test_an_unknown_family_is_named():
    with pytest.raises(InvalidArgument, match="spaceship"):
        render("spaceship", 1)
