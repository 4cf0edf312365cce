"""Photos made by code: the same on every machine."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from magpie.synthesis.backgrounds import background
from magpie.synthesis.products import TRAINING_FAMILIES, render
from magpie.synthesis.scene import compose

PHONE = (4000, 3000)  # px: twelve megapixels
TURNED = 6  # EXIF orientation of a phone held upright
ORIENTATION = 0x0112
QUALITY = 94  # with the grain: about 3 MB, as phones write


def scene(seed: int, products: int = 3) -> Image.Image:
    """Some products on a ground, 1600 x 1200 px."""
    rng = np.random.default_rng(seed)
    families = rng.choice(TRAINING_FAMILIES, size=products)
    cutouts = [render(str(family), seed * 10 + i, 400) for i, family in enumerate(families)]
    return compose(rng, cutouts, background(rng, 1600, 1200)).image


def phone_photo(seed: int = 1) -> bytes:
    """A JPEG of twelve megapixels with EXIF orientation and a phone's grain, under the 4 MB of a call."""
    image = scene(seed).resize(PHONE, Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.int16)
    grain = np.random.default_rng(seed).integers(-6, 7, pixels.shape, np.int16)
    noisy = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    with io.BytesIO() as file:
        noisy.save(file, "JPEG", quality=QUALITY, exif=exif)
        return file.getvalue()
