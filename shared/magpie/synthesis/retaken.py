"""A picture as if somebody had photographed it again: nearer, a little turned, in other light."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

MAX_SIDE = 640  # px
KEPT = (0.75, 0.95)  # fraction of each side
TURNED = 8.0  # degrees, either way
LIGHT = (0.75, 1.25)  # factor
QUALITY = 70  # of the JPEG


def retaken(pixels: NDArray[np.uint8], seed: int) -> bytes:
    """JPEG of (H, W, 3) uint8 RGB, cut, turned and lit by `seed`; the same for the same seed."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(pixels)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    corner = picture.getpixel((0, 0))
    picture = picture.rotate(rng.uniform(-TURNED, TURNED), Image.Resampling.BILINEAR, fillcolor=corner)
    width, height = (max(1, round(side * rng.uniform(*KEPT))) for side in picture.size)
    left = int(rng.integers(0, picture.width - width + 1))
    top = int(rng.integers(0, picture.height - height + 1))
    picture = picture.crop((left, top, left + width, top + height))
    picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(*LIGHT))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
