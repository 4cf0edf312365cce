"""Anchors as in SSD (Liu et al. 2016, arXiv 1512.02325): boxes of fixed shapes at every cell of every map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST, LARGEST = 0.1, 0.9  # scales of the first and the last map, as fractions of the input's side
RATIOS = (1.0, 2.0, 0.5)  # width over height; a map's square anchor also comes between its scale and the next


@dataclass(frozen=True)
class AnchorLevel:
    """One feature map of `cells` x `cells`. A shape is (side of the square of equal area, width / height)."""

    cells: int
    shapes: tuple[tuple[float, float], ...]


def levels(
    cells: Sequence[int],
    *,
    smallest: float = SMALLEST,
    largest: float = LARGEST,
    ratios: Sequence[float] = RATIOS,
) -> tuple[AnchorLevel, ...]:
    """SSD's scheme: scales that grow evenly from the first map to the last, and one in between of ratio 1."""
    steps = max(1, len(cells) - 1)
    scales = [smallest + (largest - smallest) * level / steps for level in range(len(cells))] + [1.0]
    return tuple(
        AnchorLevel(
            count,
            (*((scale, ratio) for ratio in ratios), (math.sqrt(scale * following), 1.0)),
        )
        for count, scale, following in zip(cells, scales, scales[1:], strict=False)
    )


def anchors(maps: Sequence[AnchorLevel]) -> NDArray[np.float32]:
    """(A, 4): centre x, y, width, height, as fractions of the square. Order: level, row, column, shape."""
    return np.concatenate([_level(level) for level in maps])


def _level(level: AnchorLevel) -> NDArray[np.float32]:
    centres = (np.arange(level.cells) + 0.5) / level.cells
    sides, ratios = np.array(level.shapes).T
    y, x, shape = np.meshgrid(centres, centres, np.arange(len(sides)), indexing="ij")
    width, height = sides * np.sqrt(ratios), sides / np.sqrt(ratios)
    rows = np.stack([x, y, width[shape], height[shape]], axis=-1)
    return rows.reshape(-1, 4).astype(np.float32)
