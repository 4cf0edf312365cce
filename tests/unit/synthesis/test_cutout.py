from __future__ import annotations

from collections import deque

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from magpie.synthesis.cutout import cut_from_white, flood_from_border
from magpie.synthesis.products import render


def flooded_by_queue(open_pixels):
    height, width = open_pixels.shape
    reached = np.zeros_like(open_pixels)
    queue = deque(
        (y, x)
        for y in range(height)
        for x in range(width)
        if open_pixels[y, x] and (y in (0, height - 1) or x in (0, width - 1))
    )
    while queue:
        y, x = queue.popleft()
        if 0 <= y < height and 0 <= x < width and open_pixels[y, x] and not reached[y, x]:
            reached[y, x] = True
            queue.extend([(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)])
    return reached


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_flood_equals_a_queue(open_pixels):
    assert np.array_equal(flood_from_border(open_pixels), flooded_by_queue(open_pixels))


def test_a_product_on_white_is_cut_out_with_its_shape():
    product = render("jar", 5, 128)
    sheet = Image.new("RGB", product.size, "white")
    sheet.paste(product, (0, 0), product)
    cut = cut_from_white(sheet)
    assert cut is not None
    assert cut.mode == "RGBA"
    found, truth = (np.asarray(cut)[..., 3] > 128).sum(), (np.asarray(product)[..., 3] > 128).sum()
    assert 0.93 < found / truth < 1.02


def test_white_inside_a_product_stays():
    sheet = Image.new("RGB", (60, 60), "white")
    sheet.paste((200, 30, 30), (10, 10, 50, 50))
    sheet.paste((255, 255, 255), (25, 25, 35, 35))
    cut = cut_from_white(sheet)
    assert cut is not None
    assert np.asarray(cut)[..., 3][cut.height // 2, cut.width // 2] == 255


def test_a_coloured_ground_or_an_empty_picture_gives_none():
    assert cut_from_white(Image.new("RGB", (50, 50), (120, 140, 90))) is None
    assert cut_from_white(Image.new("RGB", (50, 50), "white")) is None
