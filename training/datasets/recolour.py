"""A product in other colours is another product, and one that nobody had to photograph.

Photos and catalogue picture turned by the same angle about the grey axis stay a pair with all that lies
between a phone and a studio, while black, white and grey stay what they are. A product beside itself in other
colours is the hardest negative there is: only the colour tells. As the angle is drawn anew each time, the
network meets such products once and cannot learn them by heart, as it can the few that it is trained on.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from magpie.vision.preprocess import Pixels

LEAST = math.pi / 4  # of a turn: less might be another light


def draw_turn(rng: np.random.Generator) -> float:
    """An angle in radians."""
    return float(rng.uniform(LEAST, 2 * math.pi - LEAST))


def turned(pixels: Pixels, angle: float) -> Pixels:
    """(..., 3) uint8 RGB, with hues turned by `angle`; brightness stays, up to clipping."""
    return (pixels @ _rotation(angle).T).round().clip(0, 255).astype(np.uint8)


def _rotation(angle: float) -> NDArray[np.float32]:
    """About (1, 1, 1): Rodrigues' formula."""
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    around = math.cos(angle) * np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) / 3
    return np.asarray(around, np.float32)
