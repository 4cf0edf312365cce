"""A photo with boxes drawn on it, small enough for a page."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

LONGER_SIDE = 288  # px
# Okabe and Ito's colours, told apart by the colour-blind.
TRUE, FOUND, ERROR = (0, 158, 115), (86, 180, 233), (213, 94, 0)

Colour = tuple[int, int, int]
Outline = tuple[Sequence[float], Colour, int]  # box (fractions), colour, width in px


def outlined(image: Image.Image, outlines: Sequence[Outline]) -> Image.Image:
    """RGB, the longer side LONGER_SIDE; later boxes lie over earlier ones."""
    image = image.convert("RGB")
    scale = LONGER_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(image)
    for box, colour, width in outlines:
        corners = (np.array(box) * np.array(size * 2)).round().astype(int)
        x0, y0 = np.clip(corners[:2], 0, np.array(size) - 1)
        x1, y1 = np.clip(corners[2:] - 1, (x0, y0), np.array(size) - 1)
        # A dark line beside keeps the box visible on a ground of its own colour.
        pen.rectangle((int(x0) - 1, int(y0) - 1, int(x1) + 1, int(y1) + 1), outline=(20, 20, 20))
        pen.rectangle((int(x0), int(y0), int(x1), int(y1)), outline=colour, width=width)
    return image


def jpeg(image: Image.Image) -> bytes:
    """For a page."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
