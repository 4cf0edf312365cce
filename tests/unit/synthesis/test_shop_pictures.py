from __future__ import annotations

import numpy as np
from PIL import Image

from magpie.synthesis.backgrounds import background
from magpie.synthesis.products import render
from magpie.synthesis.scene import compose
from magpie.synthesis.shop_pictures import CATALOGUE_SIDE, PHOTO_SIZE, SUBJECT, packshot, photo


def test_a_packshot_is_the_cutout_on_white() -> None:
    cutout = Image.new("RGBA", (40, 20), (200, 10, 10, 255))
    for side in (CATALOGUE_SIDE, 96):
        pixels = np.asarray(packshot(cutout, side))
        assert pixels.shape == (side, side, 3)
        assert (pixels[0] == 255).all()
        assert (pixels[-1] == 255).all()
        np.testing.assert_allclose(pixels[side // 2, side // 2], (200, 10, 10), atol=2)
        # 86 % of the side is the cut-out's, its shape kept: half as tall as wide.
        coloured = pixels[..., 1] < 128
        assert abs(coloured.any(axis=0).sum() - 0.86 * side) <= 2
        assert abs(coloured.any(axis=1).sum() - 0.43 * side) <= 2


def test_a_photo_draws_its_ground_first_and_then_the_scene() -> None:
    """The order of the draws is what keeps a seed's sample shop the same from release to release."""
    cutout = render("can", 3, 128)
    rng, again = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(2):
        expected = compose(again, [cutout], background(again, *PHOTO_SIZE), SUBJECT).image
        assert photo(rng, [cutout]).tobytes() == expected.tobytes()


def test_a_photo_has_the_size_of_the_ground_it_is_given() -> None:
    ground = Image.new("RGB", (120, 90), (10, 200, 10))
    taken = photo(np.random.default_rng(0), [render("mug", 1, 64)], ground=ground)
    assert taken.size == (120, 90)
    assert taken.mode == "RGB"
    pixels = np.asarray(taken, np.int16)
    assert (pixels[..., 1] - pixels[..., 0] > 60).mean() > 0.3  # much of the green can be seen
