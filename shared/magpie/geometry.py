"""Boxes: one coordinate frame for the whole of Magpie.

A box is (x0, y0, x1, y1) as fractions of the upright image's width and height, in [0, 1], with x0 < x1 and
y0 < y1. The origin is the top left corner. Arrays of boxes are float32 of shape (N, 4).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from magpie.errors import InvalidArgument

Boxes = NDArray[np.float32]  # (N, 4)


class Box(NamedTuple):
    """One box, fractions of width and height."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def area(self) -> float:
        """Fraction of the image's area, in [0, 1]."""
        return max(0.0, self.x1 - self.x0) * max(0.0, self.y1 - self.y0)

    @classmethod
    def checked(cls, x0: float, y0: float, x1: float, y1: float, field: str = "box") -> Box:
        """Build a box from outside input. Raises InvalidArgument naming `field` if it is no box."""
        values = (x0, y0, x1, y1)
        if not all(math.isfinite(v) and 0.0 <= v <= 1.0 for v in values):
            raise InvalidArgument(field, f"values must be fractions in [0, 1], got {values}")
        if x0 >= x1 or y0 >= y1:
            raise InvalidArgument(field, f"needs x0 < x1 and y0 < y1, got {values}")
        return cls(*values)


WHOLE_IMAGE = Box(0.0, 0.0, 1.0, 1.0)


def iou(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Intersection over union of every pair: (N, 4), (M, 4) -> (N, M). A box of no area has IoU 0."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(bottom_right - top_left, 0.0, None)
    intersection = sides[..., 0] * sides[..., 1]
    area_a = np.prod(np.clip(a[:, 2:] - a[:, :2], 0.0, None), axis=1)
    area_b = np.prod(np.clip(b[:, 2:] - b[:, :2], 0.0, None), axis=1)
    union = area_a[:, None] + area_b[None, :] - intersection
    overlap: NDArray[np.float32] = np.zeros_like(intersection)
    np.divide(intersection, union, out=overlap, where=union > 0)
    return overlap
