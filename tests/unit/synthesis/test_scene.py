from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from magpie.synthesis.backgrounds import background
from magpie.synthesis.products import render
from magpie.synthesis.scene import SceneStyle, compose, extent_of, perspective_coefficients

STILL = SceneStyle(
    rotation=0, perspective=0, light=0, cast=0, shadow=0, blur=0, noise=0, jpeg=(100, 100), extent=(0.5, 0.5)
)


def scene(seed: int, style: SceneStyle = SceneStyle()):  # noqa: B008 - a frozen value
    rng = np.random.default_rng(seed)
    cutouts = [render("bottle", seed, 128), render("book", seed, 128), render("ball", seed, 128)]
    return compose(rng, cutouts, background(rng, 160, 120), style)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_are_the_extent_of_the_visible_pixels(seed):
    made = scene(seed)
    assert made.objects
    for placed in made.objects:
        ys, xs = (made.owner == placed.source).nonzero()
        expected = (xs.min() / 160, ys.min() / 120, (xs.max() + 1) / 160, (ys.max() + 1) / 120)
        assert placed.box == pytest.approx(expected)


def test_the_same_seed_gives_the_same_scene_and_another_seed_another():
    first, again, other = scene(3), scene(3), scene(4)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.objects == again.objects
    assert first.image.tobytes() != other.image.tobytes()


def test_visible_share_counts_what_later_objects_hide():
    # Two squares of the same size, unturned: the later one hides exactly what it covers of the earlier one.
    squares = [Image.new("RGBA", (40, 40), (200, 0, 0, 255)), Image.new("RGBA", (40, 40), (0, 0, 200, 255))]
    seen_overlap = False
    for seed in range(40):
        made = compose(np.random.default_rng(seed), squares, Image.new("RGB", (80, 80), "white"), STILL)
        front = next(placed for placed in made.objects if placed.source == 1)
        back = [placed for placed in made.objects if placed.source == 0]
        count = {source: int((made.owner == source).sum()) for source in (0, 1)}
        if front.visible == 1.0 and back:
            # The front one shows the size of a whole square.
            assert back[0].visible == pytest.approx(count[0] / count[1])
            seen_overlap |= back[0].visible < 0.95
    assert seen_overlap


def test_an_object_is_where_its_box_says():
    red = Image.new("RGBA", (40, 20), (255, 0, 0, 255))
    made = compose(np.random.default_rng(1), [red], Image.new("RGB", (100, 100), (0, 0, 255)), STILL)
    pixels = np.asarray(made.image).astype(int)
    reddish = pixels[..., 0] > pixels[..., 2]
    assert extent_of(reddish) == pytest.approx(made.objects[0].box, abs=0.021)  # JPEG blurs two pixels


def test_perspective_coefficients_send_corners_to_corners():
    to = np.array([(3.0, 1.0), (50.0, 4.0), (44.0, 60.0), (0.0, 52.0)])
    source = np.array([(0.0, 0.0), (20.0, 0.0), (20.0, 30.0), (0.0, 30.0)])
    a, b, c, d, e, f, g, h = perspective_coefficients(to, source)
    for (x, y), expected in zip(to, source, strict=True):
        depth = g * x + h * y + 1
        assert ((a * x + b * y + c) / depth, (d * x + e * y + f) / depth) == pytest.approx(expected, abs=1e-6)
