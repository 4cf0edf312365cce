"""Anchors as in SSD (Liu et al. 2016, arXiv 1512.02325): boxes of fixed shapes at every cell of every map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AnchorLevel:
    """One feature map of `cells` x `cells`. A shape is (side of the square of equal area, width / height)."""

    cells: int
    shapes: tuple[tuple[float, float], ...]


# For a 320 px input: strides 16, 32, 64, 128. Sides are fractions of the input's side.
PRODUCT_ANCHORS = (
    AnchorLevel(20, ((0.09, 1.0), (0.14, 1.0), (0.14, 0.5), (0.14, 2.0))),
    AnchorLevel(10, ((0.22, 1.0), (0.22, 0.5), (0.22, 2.0), (0.3, 1.0), (0.3, 0.4), (0.3, 2.5))),
    AnchorLevel(5, ((0.4, 1.0), (0.4, 0.5), (0.4, 2.0), (0.55, 1.0), (0.55, 0.6), (0.55, 1.7))),
    AnchorLevel(3, ((0.7, 1.0), (0.7, 0.6), (0.7, 1.7), (0.85, 1.0), (0.85, 0.7), (1.0, 1.0))),
)


def anchors(levels: tuple[AnchorLevel, ...] = PRODUCT_ANCHORS) -> NDArray[np.float32]:
    """(A, 4): centre x, y, width, height, as fractions of the square. Order: level, row, column, shape."""
    return np.concatenate([_level(level) for level in levels])


def _level(level: AnchorLevel) -> NDArray[np.float32]:
    centres = (np.arange(level.cells) + 0.5) / level.cells
    sides, ratios = np.array(level.shapes).T
    y, x, shape = np.meshgrid(centres, centres, np.arange(len(sides)), indexing="ij")
    width, height = sides * np.sqrt(ratios), sides / np.sqrt(ratios)
    rows = np.stack([x, y, width[shape], height[shape]], axis=-1)
    return rows.reshape(-1, 4).astype(np.float32)
