"""Pixels to tensors: the one module that both training and serving use.

Images are uint8 arrays (H, W, 3), RGB, upright. A letterbox keeps the aspect ratio: the image is scaled to
fit a square and centred on a grey ground. Pillow's bilinear filter widens its support when it shrinks
(antialias), so large photos do not shimmer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from magpie.geometry import Box, Boxes
from magpie.vision.model_card import InputSpec

Pixels = NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class Placement:
    """Where a letterboxed image lies in its square, in fractions of the square's side."""

    left: float
    top: float
    width: float
    height: float

    def to_image(self, boxes: Boxes) -> Boxes:
        """Boxes in fractions of the square -> fractions of the image, clipped to it. (N, 4) -> (N, 4)."""
        offset = np.array([self.left, self.top, self.left, self.top], np.float32)
        extent = np.array([self.width, self.height, self.width, self.height], np.float32)
        inside: Boxes = np.clip((boxes - offset) / extent, 0.0, 1.0).astype(np.float32)
        return inside

    def to_square(self, boxes: Boxes) -> Boxes:
        """The inverse: fractions of the image -> fractions of the square. (N, 4) -> (N, 4)."""
        offset = np.array([self.left, self.top, self.left, self.top], np.float32)
        extent = np.array([self.width, self.height, self.width, self.height], np.float32)
        return (boxes * extent + offset).astype(np.float32)


@dataclass(frozen=True)
class Letterbox:
    """Fit a region of an image into a `size` x `size` px square, the rest grey `fill`."""

    size: int
    fill: int

    def placement(self, width: float, height: float) -> Placement:
        """Where a region of `width` x `height` px comes to lie."""
        scale = self.size / max(width, height)
        inner_width = max(1, round(width * scale))
        inner_height = max(1, round(height * scale))
        return Placement(
            left=(self.size - inner_width) // 2 / self.size,
            top=(self.size - inner_height) // 2 / self.size,
            width=inner_width / self.size,
            height=inner_height / self.size,
        )

    def __call__(self, image: Image.Image, region: tuple[float, float, float, float] | None = None) -> Pixels:
        """`region` is (left, top, right, bottom) in px, the whole image if None -> (size, size, 3) uint8."""
        left, top, right, bottom = region or (0.0, 0.0, float(image.width), float(image.height))
        place = self.placement(right - left, bottom - top)
        inner = (round(place.width * self.size), round(place.height * self.size))
        resized = image.resize(inner, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        square = np.full((self.size, self.size, 3), self.fill, np.uint8)
        x, y = round(place.left * self.size), round(place.top * self.size)
        square[y : y + inner[1], x : x + inner[0]] = np.asarray(resized)
        return square


def with_context(box: Box, context: float) -> Box:
    """Widen a box by `context` of its sides all round, clipped to the image."""
    dx, dy = (box.x1 - box.x0) * context, (box.y1 - box.y0) * context
    return Box(max(0.0, box.x0 - dx), max(0.0, box.y0 - dy), min(1.0, box.x1 + dx), min(1.0, box.y1 + dy))


def crops(pixels: Pixels, boxes: Sequence[Box], spec: InputSpec) -> Pixels:
    """Cut every box, widened by the card's context, into its own square: (N, size, size, 3) uint8."""
    image = Image.fromarray(pixels)
    letterbox = Letterbox(spec.size, spec.fill)
    squares = np.empty((len(boxes), spec.size, spec.size, 3), np.uint8)
    for row, box in enumerate(boxes):
        wide = with_context(box, spec.context)
        # At least one pixel each way, so that a hair-thin box still yields a picture.
        left, top = wide.x0 * image.width, wide.y0 * image.height
        right = max(wide.x1 * image.width, left + 1)
        bottom = max(wide.y1 * image.height, top + 1)
        left, top = min(left, image.width - 1), min(top, image.height - 1)
        squares[row] = letterbox(image, (left, top, min(right, image.width), min(bottom, image.height)))
    return squares


def to_tensor(squares: Pixels, spec: InputSpec) -> NDArray[np.float32]:
    """(N, size, size, 3) uint8 -> (N, 3, size, size) float32, normalised as the card says."""
    tensor = squares.transpose(0, 3, 1, 2).astype(np.float32)
    tensor -= spec.mean
    tensor /= spec.scale
    return np.ascontiguousarray(tensor)
