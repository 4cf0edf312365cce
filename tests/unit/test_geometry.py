from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.errors import InvalidArgument
from magpie.geometry import WHOLE_IMAGE, Box, iou

fractions = st.floats(0, 1, width=32)


@given(fractions, fractions, fractions, fractions)
def test_checked_takes_boxes_and_nothing_else(x0: float, y0: float, x1: float, y1: float) -> None:
    if x0 < x1 and y0 < y1:
        assert Box.checked(x0, y0, x1, y1) == (x0, y0, x1, y1)
    else:
        with pytest.raises(InvalidArgument, match="needs x0 < x1 and y0 < y1"):
            Box.checked(x0, y0, x1, y1)


@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(4))
def test_checked_names_the_field_of_a_value_out_of_range(bad: float, place: int) -> None:
    values = [0.1, 0.1, 0.9, 0.9]
    values[place] = bad
    with pytest.raises(InvalidArgument, match=r"^objects\[2\]\.box: values must be fractions"):
        Box.checked(*values, field="objects[2].box")


def test_area() -> None:
    assert WHOLE_IMAGE.area == 1.0
    assert Box(0.25, 0.5, 0.75, 1.0).area == 0.25


box_rows = st.lists(
    st.tuples(*[st.integers(0, 16)] * 4).map(lambda v: (*sorted(v[:2]), *sorted(v[2:]))),
    min_size=1,
    max_size=6,
).map(lambda rows: np.array([(x0, y0, x1, y1) for x0, x1, y0, y1 in rows]))


@given(box_rows, box_rows)
def test_iou_counts_cells(a: np.ndarray, b: np.ndarray) -> None:
    """Reference: paint both boxes on a 16 x 16 grid and count."""

    def cells(box: np.ndarray) -> np.ndarray:
        grid = np.zeros((16, 16), bool)
        grid[box[1] : box[3], box[0] : box[2]] = True
        return grid

    found = iou((a / 16).astype(np.float32), (b / 16).astype(np.float32))
    assert found.shape == (len(a), len(b))
    for i, box in enumerate(a):
        for j, other in enumerate(b):
            union = (cells(box) | cells(other)).sum()
            both = (cells(box) & cells(other)).sum()
            assert found[i, j] == pytest.approx(both / union if union else 0.0, abs=1e-6)
