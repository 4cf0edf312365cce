"""What a camera and a hand do to a picture, for training only.

Each change draws from the generator that it is given, so that a batch depends on its seed alone. The resize
at the end is serving's own (`magpie.vision.preprocess.Letterbox`).
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from magpie.vision.preprocess import Letterbox, Pixels

Region = tuple[float, float, float, float]  # left, top, right, bottom in px


@dataclass(frozen=True)
class Augment:
    """A picture -> a training picture. Probabilities in [0, 1]; `area` and `aspect` are ranges."""

    area: tuple[float, float] = (0.35, 1.0)  # of the picture, kept by a crop
    aspect: tuple[float, float] = (0.75, 1.33)  # of the crop, relative to the picture's
    crop: float = 0.8
    shrink: tuple[float, float] = (0.55, 1.0)  # the object smaller, on a ground of one colour
    shrinks: float = 0.25
    rotation: float = 20.0  # degrees, either way
    rotates: float = 0.4
    flip: float = 0.5
    jitter: float = 0.35  # strength of brightness, contrast and colour
    blur: float = 0.2
    jpeg: float = 0.4

    def __call__(self, image: Image.Image, letterbox: Letterbox, rng: np.random.Generator) -> Pixels:
        """(size, size, 3) uint8."""
        if rng.random() < self.rotates:
            degrees = rng.uniform(-self.rotation, self.rotation)
            image = image.rotate(
                degrees, Image.Resampling.BILINEAR, expand=True, fillcolor=_edge_colour(image)
            )
        if rng.random() < self.shrinks:
            image = _shrunk(image, rng.uniform(*self.shrink), rng)
        if rng.random() < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        region = self._region(image, rng) if rng.random() < self.crop else None
        square = Image.fromarray(letterbox(image, region))
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            square = enhance(square).enhance(rng.uniform(1 - self.jitter, 1 + self.jitter))
        if rng.random() < self.blur:
            square = square.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
        if rng.random() < self.jpeg:
            square = _recompressed(square, int(rng.integers(25, 85)))
        return np.asarray(square)

    def _region(self, image: Image.Image, rng: np.random.Generator) -> Region:
        area = rng.uniform(*self.area)
        stretch = math.exp(rng.uniform(math.log(self.aspect[0]), math.log(self.aspect[1]))) ** 0.5
        width = min(1.0, math.sqrt(area) * stretch) * image.width
        height = min(1.0, math.sqrt(area) / stretch) * image.height
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        return (left, top, left + width, top + height)


def _shrunk(image: Image.Image, scale: float, rng: np.random.Generator) -> Image.Image:
    """The picture somewhere on a larger ground, of its edge's colour or of any."""
    colour = _edge_colour(image) if rng.random() < 0.5 else tuple(int(c) for c in rng.integers(0, 256, 3))
    ground = Image.new("RGB", (round(image.width / scale), round(image.height / scale)), colour)
    room = (ground.width - image.width, ground.height - image.height)
    ground.paste(image, (int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))))
    return ground


def _edge_colour(image: Image.Image) -> tuple[int, ...]:
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(c) for c in np.median(edge, axis=0))


def _recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
