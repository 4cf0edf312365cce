from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from magpie.geometry import WHOLE_IMAGE, Box
from magpie.vision.model_card import InputSpec
from magpie.vision.preprocess import Letterbox, crops, to_tensor, with_context

SPEC = InputSpec(name="image", size=64, mean=127, scale=128, fill=114)
sides = st.integers(8, 4000)
fractions = st.integers(0, 1000).map(lambda v: v / 1000)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x0, x1 = sorted(draw(st.lists(fractions, min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(draw(st.lists(fractions, min_size=2, max_size=2, unique=True)))
    return x0, y0, x1, y1


@given(sides, sides, st.sampled_from([64, 224, 320]), boxes())
def test_a_box_survives_the_trip_through_the_square(
    width: int, height: int, size: int, box: tuple[float, float, float, float]
) -> None:
    place = Letterbox(size, fill=114).placement(width, height)
    start = np.array([box], np.float32)
    square = place.to_square(start)
    assert (square >= 0).all()
    assert (square <= 1 + 1e-6).all()
    # A very long picture is one pixel thick in the square: float32 then has fewer digits left.
    tolerance = 1e-6 / min(place.width, place.height)
    np.testing.assert_allclose(place.to_image(square), start, atol=tolerance)


@given(sides, sides)
def test_the_placement_is_centred_and_touches_two_sides(width: int, height: int) -> None:
    place = Letterbox(320, fill=114).placement(width, height)
    assert max(place.width, place.height) == 1
    assert abs(place.left * 2 + place.width - 1) <= 1 / 320 + 1e-9
    assert abs(place.top * 2 + place.height - 1) <= 1 / 320 + 1e-9
    assert abs(place.width / place.height - width / height) <= 0.1 * width / height or min(width, height) < 40


def test_pixels_lie_where_the_placement_says() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[50:, 100:] = 255  # the lower right quarter
    letterbox = Letterbox(64, fill=114)
    square = letterbox(Image.fromarray(pixels))
    place = letterbox.placement(200, 100)
    x0, y0, x1, y1 = (place.to_square(np.array([[0.5, 0.5, 1, 1]], np.float32))[0] * 64).astype(int)
    assert (square[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] == 255).all()
    assert (square[:16] == 114).all()
    assert (square[48:] == 114).all()
    assert (square[17:31] == 0).all()


def test_boxes_that_reach_into_the_border_are_clipped_to_the_image() -> None:
    place = Letterbox(64, fill=114).placement(200, 100)
    np.testing.assert_allclose(place.to_image(np.array([[0, 0, 1, 1]], np.float32)), [[0, 0, 1, 1]])


def test_crops_are_cut_from_their_boxes() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:50, :100] = (255, 0, 0)
    pixels[50:, 100:] = (0, 0, 255)
    found = crops(pixels, [Box(0, 0, 0.25, 0.5), Box(0.6, 0.5, 0.85, 1.0), WHOLE_IMAGE], SPEC)
    assert found.shape == (3, 64, 64, 3)
    inner = slice(4, -4)  # at its edges an enlarged crop mixes with what lies beside it
    assert (found[0][inner, inner] == (255, 0, 0)).all()
    assert (found[1][inner, inner] == (0, 0, 255)).all()
    assert (found[2, 0] == 114).all()


@given(boxes())
def test_the_thinnest_box_still_gives_a_square(box: tuple[float, float, float, float]) -> None:
    pixels = np.full((30, 40, 3), 200, np.uint8)
    square = crops(pixels, [Box(*box)], SPEC)[0]
    assert (square == 200).any()
    assert set(np.unique(square)) <= {114, 200}


@given(boxes(), st.floats(0, 1))
def test_context_widens_and_stays_inside(box: tuple[float, float, float, float], context: float) -> None:
    wide = with_context(Box(*box), context)
    assert 0 <= wide.x0 <= box[0] < box[2] <= wide.x1 <= 1
    assert 0 <= wide.y0 <= box[1] < box[3] <= wide.y1 <= 1


def test_the_tensor_is_channels_first_and_normalised() -> None:
    squares = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    tensor = to_tensor(squares, SPEC)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    for n, y, x, channel in [(0, 0, 0, 0), (1, 63, 5, 2), (0, 7, 40, 1)]:
        assert tensor[n, channel, y, x] == pytest.approx((int(squares[n, y, x, channel]) - 127) / 128)
