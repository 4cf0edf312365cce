"""An image and what a detector is to find in it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from magpie.geometry import Boxes


@dataclass(frozen=True)
class LabelledImage:
    """RGB; boxes (N, 4) to find and regions (M, 4) that are not judged, as fractions of the image."""

    image: Image.Image
    boxes: Boxes
    ignored: Boxes
