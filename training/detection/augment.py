"""Changes to a letterboxed training picture and its boxes. Serving never sees any of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from magpie.geometry import Boxes
from magpie.vision.preprocess import Pixels
from training.detection.pool import Scene

KEPT = 0.5  # share of a box inside the new frame from which it must still be found; less: not judged


@dataclass(frozen=True)
class Augment:
    """Strengths; every draw comes from the generator that is passed in."""

    window: tuple[float, float] = (0.6, 1.3)  # side of the part that is shown: below 1 crops, above 1 expands
    squeeze: float = 0.0  # width over height of that part is at most 1 + squeeze, at least its inverse
    mirror: float = 0.5  # probability
    turn: float = 0.0  # probability of each of three quarter turns, together
    mosaic: float = (
        0.0  # probability that four pictures become one (Bochkovskiy et al. 2020, arXiv 2004.10934)
    )
    light: float = 0.3
    contrast: float = 0.2
    colour: float = 0.12
    fill: int = 127  # grey outside the picture

    def __call__(self, rng: np.random.Generator, scene: Scene, size: int) -> Scene:
        """A square picture -> a changed one of `size` px."""
        scene = _turned(scene, int(rng.integers(1, 4)) if rng.random() < self.turn else 0)
        scene = self._window(rng, scene, size)
        if rng.random() < self.mirror:
            scene = _mirrored(scene)
        return Scene(self._lit(rng, scene.pixels), scene.boxes, scene.labels, scene.ignored)

    def _window(self, rng: np.random.Generator, scene: Scene, size: int) -> Scene:
        """Show a part of the picture, or all of it on a larger grey ground."""
        area = rng.uniform(*self.window)
        ratio = np.exp(rng.uniform(-1, 1) * np.log1p(self.squeeze) / 2)
        sides = np.array([area * ratio, area / ratio])
        corner = rng.random(2) * (1 - sides)  # outside the picture if the window is larger
        frame = np.concatenate([corner, corner + sides])
        inside = np.clip(frame, 0.0, 1.0)
        extent = inside * scene.pixels.shape[0]
        place = np.round((inside - np.tile(corner, 2)) / np.tile(sides, 2) * size).astype(int)
        part = (int(max(1, place[2] - place[0])), int(max(1, place[3] - place[1])))
        shown = Image.fromarray(scene.pixels).resize(part, Image.Resampling.BILINEAR, box=tuple(extent))
        pixels = np.full((size, size, 3), self.fill, np.uint8)
        pixels[place[1] : place[1] + part[1], place[0] : place[0] + part[0]] = np.asarray(shown)
        offset, scale = np.tile(corner, 2).astype(np.float32), np.tile(sides, 2).astype(np.float32)
        return cut(
            Scene(pixels, (scene.boxes - offset) / scale, scene.labels, (scene.ignored - offset) / scale)
        )

    def _lit(self, rng: np.random.Generator, pixels: Pixels) -> Pixels:
        gain = rng.uniform(1 - self.light, 1 + self.light) * (1 + rng.uniform(-self.colour, self.colour, 3))
        middle = pixels.mean()
        contrast = rng.uniform(1 - self.contrast, 1 + self.contrast)
        lit = ((pixels.astype(np.float32) - middle) * contrast + middle) * gain.astype(np.float32)
        changed: Pixels = np.clip(lit + np.float32(rng.uniform(-20, 20)), 0, 255).astype(np.uint8)
        return changed


def mosaic(rng: np.random.Generator, scenes: Sequence[Scene], size: int) -> Scene:
    """Four pictures around a random middle, each cut to its quarter: one picture of `size` px."""
    middle = rng.integers(round(0.3 * size), round(0.7 * size), 2)
    pixels = np.empty((size, size, 3), np.uint8)
    parts = []
    for quarter, scene in enumerate(scenes):
        x0, x1 = (0, middle[0]) if quarter % 2 == 0 else (middle[0], size)
        y0, y1 = (0, middle[1]) if quarter < 2 else (middle[1], size)
        side = int(max(x1 - x0, y1 - y0))
        scaled = np.asarray(Image.fromarray(scene.pixels).resize((side, side), Image.Resampling.BILINEAR))
        left, top = rng.integers(0, side - (x1 - x0) + 1), rng.integers(0, side - (y1 - y0) + 1)
        pixels[y0:y1, x0:x1] = scaled[top : top + y1 - y0, left : left + x1 - x0]
        frame = np.array([left, top, left, top], np.float32) / np.float32(side)
        share = np.array([x1 - x0, y1 - y0] * 2, np.float32) / np.float32(side)
        part = cut(
            Scene(scene.pixels, (scene.boxes - frame) / share, scene.labels, (scene.ignored - frame) / share)
        )
        offset, scale = np.array([x0, y0] * 2, np.float32) / size, share * side / size
        parts.append((part.boxes * scale + offset, part.labels, part.ignored * scale + offset))
    boxes, labels, ignored = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Scene(pixels, boxes, labels, ignored)


def cut(scene: Scene) -> Scene:
    """Boxes clipped to the frame; those of which too little is left are no longer judged."""
    inside, kept = _clipped(scene.boxes)
    region, seen = _clipped(scene.ignored)
    rest = inside[(kept < KEPT) & (kept > 0)]
    whole = kept >= KEPT
    return Scene(scene.pixels, inside[whole], scene.labels[whole], np.concatenate([region[seen > 0], rest]))


def _mirrored(scene: Scene) -> Scene:
    return Scene(
        np.ascontiguousarray(scene.pixels[:, ::-1]),
        *(scene.boxes[:, [2, 1, 0, 3]] * _MIRROR + _SHIFT, scene.labels),
        scene.ignored[:, [2, 1, 0, 3]] * _MIRROR + _SHIFT,
    )


_MIRROR, _SHIFT = np.array([-1, 1, -1, 1], np.float32), np.array([1, 0, 1, 0], np.float32)


def _turned(scene: Scene, quarters: int) -> Scene:
    """Turned left by so many quarters."""
    boxes, ignored = scene.boxes, scene.ignored
    for _ in range(quarters):
        boxes, ignored = _turned_left(boxes), _turned_left(ignored)
    return Scene(np.rot90(scene.pixels, quarters), boxes, scene.labels, ignored)


def _turned_left(boxes: Boxes) -> Boxes:
    x0, y0, x1, y1 = boxes.T
    return np.stack([y0, 1 - x1, y1, 1 - x0], axis=1)


def _clipped(boxes: Boxes) -> tuple[Boxes, NDArray[np.float32]]:
    """The parts of boxes inside the frame, and their share of the boxes' areas."""
    inside = np.clip(boxes, 0.0, 1.0)
    area = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-9)
    return inside, np.prod(np.clip(inside[:, 2:] - inside[:, :2], 0, None), axis=1) / area
