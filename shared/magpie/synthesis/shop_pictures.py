"""The two kinds of picture of a product: the catalogue's, on white, and a phone's, in a scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from magpie.synthesis.backgrounds import background
from magpie.synthesis.scene import SceneStyle, compose

CATALOGUE_SIDE = 512  # px
PHOTO_SIZE = (1024, 768)  # px
SUBJECT = SceneStyle(extent=(0.45, 0.7), rotation=15.0, perspective=0.12)
TABLE = SceneStyle(extent=(0.35, 0.5), rotation=15.0, perspective=0.12, overlap=0.0)


def packshot(cutout: Image.Image, side: int = CATALOGUE_SIDE) -> Image.Image:
    """The cut-out (RGBA) in the middle of a white square of `side` px, with a margin. RGB."""
    room = round(side * 0.86)
    scale = room / max(cutout.size)
    size = (max(1, round(cutout.width * scale)), max(1, round(cutout.height * scale)))
    # Premultiplied alpha, so that hidden colours do not bleed into the edge.
    enlarged = cutout.convert("RGBa").resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    picture = Image.new("RGB", (side, side), "white")
    picture.paste(enlarged, ((side - size[0]) // 2, (side - size[1]) // 2), enlarged)
    return picture


def photo(
    rng: np.random.Generator,
    cutouts: Sequence[Image.Image],
    style: SceneStyle = SUBJECT,
    ground: Image.Image | None = None,
) -> Image.Image:
    """The cut-outs (RGBA) as a phone would see them, RGB, the ground's size.

    Without a ground, one of PHOTO_SIZE is drawn, from `rng` like all else.
    """
    return compose(rng, cutouts, ground or background(rng, *PHOTO_SIZE), style).image
