"""What a sample shop sells, before prices and pictures are made for it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Ware:
    """One product as a cut-out: RGBA, cropped to what can be seen."""

    product_id: str
    title: str
    category: str
    cutout: Image.Image
    group: str = ""  # the same for variants of one product
