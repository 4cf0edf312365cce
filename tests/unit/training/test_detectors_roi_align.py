from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.training.tiny_boxes import NO_BOXES, random_boxes
from training.models.detectors.roi_align import roi_align


def bilinear(plane, x, y, outside):
    """The value at (x, y), fractions, of a plane (H, W) whose cells have their middles at halves."""
    height, width = plane.shape
    x, y = x * width - 0.5, y * height - 0.5
    if outside == "border":
        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = math.floor(x), math.floor(y)
    total = 0.0
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - abs(x - column)) * (1 - abs(y - row))
        if 0 <= column < width and 0 <= row < height:
            total += weight * plane[row, column]
    return total


def by_loops(maps, boxes, cells, samples, outside):
    count, channels = maps.shape[:2]
    out = np.zeros((count, boxes.shape[1], channels, cells, cells))
    for n, k, c, i, j in np.ndindex(out.shape):
        x0, y0, x1, y1 = boxes[n, k]
        values = []
        for a, b in np.ndindex(samples, samples):
            x = x0 + (x1 - x0) * (j + (b + 0.5) / samples) / cells
            y = y0 + (y1 - y0) * (i + (a + 0.5) / samples) / cells
            values.append(bilinear(maps[n, c], x, y, outside))
        out[n, k, c, i, j] = np.mean(values)
    return out


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 2), st.sampled_from(["border", "zeros"]))
@settings(max_examples=30)
def test_it_equals_bilinear_samples_in_loops(seed, cells, samples, outside):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, 2, 5, 7, generator=generator, dtype=torch.float64)
    boxes = torch.stack([random_boxes(3, generator), random_boxes(3, generator) * 1.4 - 0.2]).double()
    found = roi_align(maps, boxes, cells, samples=samples, outside=outside)
    assert found.numpy() == pytest.approx(by_loops(maps.numpy(), boxes.numpy(), cells, samples, outside))


def test_no_boxes_give_nothing_and_take_a_gradient():
    maps = torch.rand(1, 4, 5, 5, requires_grad=True)
    found = roi_align(maps, NO_BOXES[None], 3)
    assert found.shape == (1, 0, 4, 3, 3)
    found.sum().backward()
    assert not maps.grad.any()
