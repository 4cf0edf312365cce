"""Changes to a letterboxed training picture and its boxes. Serving never sees any of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from magpie.geometry import Boxes
from magpie.vision.preprocess import Pixels

KEPT = 0.5  # share of a box inside the new frame from which it must still be found


@dataclass(frozen=True)
class Augment:
    """Strengths; every draw comes from the generator that is passed in."""

    window: tuple[float, float] = (0.6, 1.3)  # side of the part that is shown: below 1 enlarges
    light: float = 0.3
    colour: float = 0.12
    fill: int = 127  # grey outside the picture

    def __call__(
        self, rng: np.random.Generator, pixels: Pixels, boxes: Boxes, ignored: Boxes
    ) -> tuple[Pixels, Boxes, Boxes]:
        """A picture (S, S, 3), boxes (N, 4) and ignored regions (M, 4), as fractions -> the same, changed."""
        size = pixels.shape[0]
        side = rng.uniform(*self.window)
        left, top = rng.random(2) * (1 - side)  # outside the picture if the window is larger
        mirrored = rng.random() < 0.5
        extent = (left * size, top * size, (left + side) * size, (top + side) * size)
        shown = Image.fromarray(pixels).transform(
            (size, size),
            Image.Transform.EXTENT,
            extent,
            Image.Resampling.BILINEAR,
            fillcolor=(self.fill,) * 3,
        )
        gain = rng.uniform(1 - self.light, 1 + self.light) * (1 + rng.uniform(-self.colour, self.colour, 3))
        lit = np.asarray(shown, np.float32) * gain.astype(np.float32) + np.float32(rng.uniform(-20, 20))
        changed = np.clip(lit, 0, 255).astype(np.uint8)
        offset = np.array([left, top, left, top], np.float32)
        boxes, ignored = (boxes - offset) / np.float32(side), (ignored - offset) / np.float32(side)
        if mirrored:
            changed = np.ascontiguousarray(changed[:, ::-1])
            boxes, ignored = _mirrored(boxes), _mirrored(ignored)
        inside, kept = _clipped(boxes)
        region, _ = _clipped(ignored)
        cut = inside[(kept < KEPT) & (kept > 0)]
        return changed, inside[kept >= KEPT], np.concatenate([region[_has_area(region)], cut])


def _mirrored(boxes: Boxes) -> Boxes:
    return np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)


def _has_area(boxes: Boxes) -> np.ndarray:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _clipped(boxes: Boxes) -> tuple[Boxes, np.ndarray]:
    """The parts of boxes inside the frame, and their share of the boxes' areas."""
    inside = np.clip(boxes, 0.0, 1.0)
    area = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-9)
    return inside, np.prod(np.clip(inside[:, 2:] - inside[:, :2], 0, None), axis=1) / area
