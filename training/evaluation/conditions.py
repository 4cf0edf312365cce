"""What happens to photos in use, applied to a query picture before serving's preprocessing.

Every condition gives the same pixels for the same picture, so that a figure can be had again. Strengths are
relative to the picture's size: a photo of 12 megapixels and a thumbnail suffer alike.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, ImageFilter

from training.datasets.example import Example


@dataclass(frozen=True)
class Condition:
    """One thing that happens, and how strongly."""

    name: str
    strength: str  # in words, for the report
    apply: Callable[[Image.Image], Image.Image]  # RGB -> RGB


@dataclass(frozen=True)
class ExampleUnder(Example):
    """An example whose picture suffers a condition when it is loaded."""

    condition: Condition | None = None

    def load(self, working_size: int = 512) -> Image.Image:
        """As `Example.load`, then the condition."""
        picture = super().load(working_size)
        return picture if self.condition is None else self.condition.apply(picture)


def under(condition: Condition | None, example: Example) -> Example:
    """The example as it looks under a condition; itself under none."""
    if condition is None:
        return example
    values = {field.name: getattr(example, field.name) for field in fields(Example)}
    return ExampleUnder(**values, condition=condition)


def _blur(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(BLUR * max(picture.size)))


def _dark(picture: Image.Image) -> Image.Image:
    light = (np.arange(256) / 255.0) ** GAMMA * EXPOSURE
    return picture.point([round(255 * value) for value in light] * 3)


def _jpeg(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    with Image.open(buffer) as again:
        return again.convert("RGB")


def _occluded(picture: Image.Image) -> Image.Image:
    """A grey rectangle of the picture's proportions, its place drawn from the picture's own pixels."""
    side = OCCLUDED**0.5
    width, height = round(side * picture.width), round(side * picture.height)
    seed = hashlib.sha256(picture.tobytes()).digest()
    across, down = int.from_bytes(seed[:4], "big") / 2**32, int.from_bytes(seed[4:8], "big") / 2**32
    # In the middle four fifths: a hand or a price tag lies on the product, not in a corner of the photo.
    left = round((0.1 + 0.8 * across) * (picture.width - width))
    top = round((0.1 + 0.8 * down) * (picture.height - height))
    covered = picture.copy()
    covered.paste((127, 127, 127), (left, top, left + width, top + height))
    return covered


BLUR = 0.012  # standard deviation of the Gaussian, of the longer side: 6 px of 512, a hand that shook
GAMMA, EXPOSURE = 1.5, 0.4  # middle grey 128 becomes 36, white 102: a dim room
JPEG_QUALITY = 10  # Pillow's scale; 75 is usual, blocks are plain to see at 10
OCCLUDED = 0.2  # of the area


CONDITIONS: tuple[Condition, ...] = (
    Condition("rotation 90", "a quarter turn to the left", lambda p: p.transpose(Image.Transpose.ROTATE_90)),
    Condition("rotation 180", "upside down", lambda p: p.transpose(Image.Transpose.ROTATE_180)),
    Condition(
        "rotation 270", "a quarter turn to the right", lambda p: p.transpose(Image.Transpose.ROTATE_270)
    ),
    Condition("blur", f"Gaussian, deviation {BLUR:.1%} of the longer side", _blur),
    Condition("darkness", f"gamma {GAMMA}, then {EXPOSURE} of the light", _dark),
    Condition("jpeg", f"JPEG of quality {JPEG_QUALITY}", _jpeg),
    Condition("occlusion", f"a grey rectangle over {OCCLUDED:.0%} of the picture", _occluded),
)
