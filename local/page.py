"""What the HTML pages have in common: one style, and pictures that lie in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import jinja2
from PIL import Image, ImageOps

from local.client import UploadFailed

PICTURE_SIDE = 320  # px, longer side, of a product's picture


def template(name: str) -> jinja2.Template:
    """A template of this folder; values are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def picture(url: str, fetch: Callable[[str], bytes]) -> str:
    """A picture as an address that holds it; empty where there is none, or it cannot be fetched."""
    if not url:
        return ""
    try:
        data = fetch(url)
    except UploadFailed:
        return ""
    with Image.open(io.BytesIO(data)) as opened:
        opened.draft("RGB", (2 * PICTURE_SIDE, 2 * PICTURE_SIDE))
        upright = ImageOps.exif_transpose(opened).convert("RGBA")
    ground = Image.new("RGBA", upright.size, "white")
    return data_uri(Image.alpha_composite(ground, upright).convert("RGB"), PICTURE_SIDE)


def data_uri(pixels: Image.Image, side: int) -> str:
    """RGB, shrunk to at most `side` px, as an address that holds it."""
    small = pixels.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
