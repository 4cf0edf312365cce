from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.geometry import WHOLE_IMAGE, Box
from magpie.vision.views import View, mixed, regions

BOXES = [WHOLE_IMAGE, Box(0, 0, 0.5, 0.5), Box(0.2, 0.2, 0.7, 0.9), Box(0.1, 0, 1, 1)]
views = st.lists(st.builds(View, st.sampled_from(BOXES), st.floats(0.1, 1.0)), min_size=1, max_size=3)


@given(st.lists(views, min_size=1, max_size=4))
def test_vectors_are_mixed_as_a_naive_loop_mixes_them(objects: list[list[View]]) -> None:
    boxes = regions(objects)
    assert sorted(boxes) == sorted({view.box for of_one in objects for view in of_one})
    vectors = np.random.default_rng(0).normal(size=(len(boxes), 6)).astype(np.float32)
    found = mixed(vectors, objects)
    for row, of_one in enumerate(objects):
        expected = sum(view.share * vectors[boxes.index(view.box)] for view in of_one)
        assert found[row] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)


def test_the_middle_of_a_box_keeps_its_centre() -> None:
    middle = Box(0.1, 0.2, 0.5, 1.0).middle(0.5)
    assert middle == pytest.approx((0.2, 0.4, 0.4, 0.8))
    assert Box(0.1, 0.2, 0.5, 1.0).middle(1.0) == pytest.approx((0.1, 0.2, 0.5, 1.0))
