"""A picture saved again is the same one; another picture or colour, or one that shows nothing, is not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from magpie.duplicates.re_encodings import MAX_BITS, re_encodings
from magpie.synthesis.backgrounds import background
from magpie.v1.image_pb2 import Fingerprint
from magpie.vision.decode import decode
from magpie.vision.fingerprint import fingerprint


def scene(seed: int, size: int = 240) -> Image.Image:
    """A ground with some discs on it: no two alike."""
    rng = np.random.default_rng(seed)
    pixels = np.array(background(rng, size, size))
    y, x = np.mgrid[:size, :size]
    for _ in range(6):
        cx, cy, radius = *rng.uniform(0, size, 2), rng.uniform(size / 10, size / 4)
        pixels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def of(image: Image.Image, kind: str = "PNG", **options: object) -> Fingerprint:
    """The fingerprint of a file, as detection makes it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return fingerprint(decode(file.getvalue()).pixels)


CHANGES: dict[str, Callable[[Image.Image], Fingerprint]] = {
    "a poor JPEG": lambda image: of(image, "JPEG", quality=20),
    "WebP": lambda image: of(image, "WEBP", quality=60),
    "half the size": lambda image: of(image.resize((120, 120)), "JPEG", quality=80),
    "larger than what is decoded": lambda image: of(image.resize((1800, 1800)), "JPEG", quality=80),
    "stretched": lambda image: of(image.resize((240, 216))),
    "brighter": lambda image: of(ImageEnhance.Brightness(image).enhance(1.05)),
    "a little cut": lambda image: of(image.crop((2, 2, 238, 238)), "JPEG", quality=80),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_picture_saved_again(change: Callable[[Image.Image], Fingerprint]) -> None:
    originals = [scene(seed) for seed in range(10)]
    prints = [*map(of, originals), *map(change, originals)]
    assert sorted((one, other) for one, other, _ in re_encodings(prints)) == [(n, n + 10) for n in range(10)]
    assert all(0 <= bits <= MAX_BITS for *_, bits in re_encodings(prints))


def test_a_product_in_another_colour_is_another_picture() -> None:
    y, x = np.mgrid[:200, :200]
    inside = (x - 100) ** 2 + (y - 100) ** 2 < 70**2
    prints = []
    for colour in [(170, 120, 60), (60, 150, 110), (60, 60, 60)]:
        pixels = np.full((200, 200, 3), 255, np.uint8)
        pixels[inside] = colour
        pixels[inside & (y % 20 < 8)] = (20, 20, 20)
        prints.append(of(Image.fromarray(pixels)))
    hashes = [print_.perceptual_hash for print_ in prints]
    assert max((hashes[0] ^ other).bit_count() for other in hashes) <= MAX_BITS  # the hash alone: one picture
    assert list(re_encodings(prints)) == []


def test_turned_and_mirrored_pictures_are_others() -> None:
    image = scene(1)
    turns = [Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM]
    assert list(re_encodings([of(image), *(of(image.transpose(turn)) for turn in turns)])) == []


def test_pictures_that_show_nothing_are_compared_with_none() -> None:
    plain = [of(Image.new("RGB", (64, 64), colour)) for colour in ("white", "white", (250, 250, 252))]
    assert plain == [Fingerprint()] * 3
    assert list(re_encodings([*plain, of(scene(3)), of(scene(3), "JPEG", quality=90)])) == [
        (3, 4, (of(scene(3)).perceptual_hash ^ of(scene(3), "JPEG", quality=90).perceptual_hash).bit_count())
    ]
