"""What a camera and a hand do to a picture, for training only.

Two steps. `frame` turns, crops and shrinks one picture, and makes a heap or another ground out of a catalogue
picture; it ends with serving's own resize (`magpie.vision.preprocess.Letterbox`). `photograph` changes the
light, blurs, covers and compresses a batch of squares: kornia for what it has, Pillow for a true JPEG codec,
which is twenty times as fast as a differentiable one. All draws follow the generator that is given, so that a
batch depends on its seed alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import kornia.augmentation as K
import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from magpie.synthesis.backgrounds import background
from magpie.synthesis.cutout import cut_from_white
from magpie.vision.preprocess import Letterbox, Pixels

Region = tuple[float, float, float, float]  # left, top, right, bottom in px


@dataclass(frozen=True)
class Augment:
    """How far and how often. Probabilities in [0, 1]; ranges are uniform."""

    # The frame
    crop: float = 0.8
    area: tuple[float, float] = (0.35, 1.0)  # of the picture, kept by a crop
    aspect: tuple[float, float] = (0.75, 1.33)  # of the crop, relative to the picture's
    shrinks: float = 0.25
    shrink: tuple[float, float] = (0.55, 1.0)  # the object smaller, on a ground of one colour
    quarter_turns: float = 0.4  # by 90, 180 or 270 degrees: phones are held every way
    rotates: float = 0.4
    rotation: float = 20.0  # degrees, either way
    flip: float = 0.5
    background: float = 0.35  # another ground behind a catalogue picture on white
    heap: float = 0.35  # many of it in a heap, as in a shop's bin, out of a catalogue picture on white
    # The light and the lens
    light: float = 0.9  # brightness, contrast, saturation
    strength: float = 0.35  # of each, either way
    white_balance: float = 0.2
    shadow: float = 0.2  # light that falls off to one side
    blur: float = 0.2
    motion: float = 0.1
    noise: float = 0.15
    covers: float = 0.15  # a part hidden by a grey block: a hand, another product
    jpeg: float = 0.3
    quality: tuple[int, int] = (25, 85)  # of JPEG

    def frame(
        self, image: Image.Image, letterbox: Letterbox, rng: np.random.Generator, catalogue: bool = False
    ) -> Pixels:
        """One picture -> (size, size, 3) uint8."""
        if catalogue:
            image = self._rearranged(image, rng)
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
        square = letterbox(image, region)
        if rng.random() < self.quarter_turns:
            square = np.rot90(square, int(rng.integers(1, 4)))
        return np.ascontiguousarray(square)

    def photograph(self, squares: Pixels, rng: np.random.Generator) -> Pixels:
        """(N, size, size, 3) uint8 -> the same shape."""
        pictures = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            for change in self._changes(squares.shape[1]):
                pictures = change(pictures)
        changed = (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for row in np.flatnonzero(rng.random(len(changed)) < self.jpeg):
            changed[row] = _recompressed(changed[row], int(rng.integers(*self.quality)))
        return np.ascontiguousarray(changed)

    def _changes(self, size: int) -> Sequence[K.AugmentationBase2D]:
        """kornia's part, on (N, 3, size, size) in [0, 1]."""
        around_one = (1 - self.strength, 1 + self.strength)
        widest = max(3, round(size / 24) | 1)  # px of a moved camera, odd
        return (
            K.RandomBrightness(around_one, p=self.light),
            K.RandomContrast(around_one, p=self.light),
            K.RandomSaturation(around_one, p=self.light),
            K.RandomPlanckianJitter(mode="blackbody", p=self.white_balance),
            K.RandomLinearIllumination(gain=(0.05, 0.35), p=self.shadow),
            K.RandomGaussianBlur((7, 7), (0.3, 1.5), p=self.blur),
            K.RandomMotionBlur((3, widest), 180.0, 0.0, p=self.motion),
            K.RandomGaussianNoise(std=0.03, p=self.noise),
            K.RandomErasing((0.02, 0.2), (0.4, 2.5), value=0.5, p=self.covers),
        )

    def _rearranged(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """What stands on white, as a heap or on a drawn ground; other pictures as they are."""
        draw = rng.random()
        cutout = cut_from_white(image) if draw < self.background + self.heap else None
        if cutout is None:
            return image
        size = max(image.size)
        ground = background(rng, size, size)
        if draw < self.heap:
            return _heap(cutout, ground, rng)
        longer = round(size * rng.uniform(0.6, 1.0))
        small = ImageOps.contain(cutout, (longer, longer))
        left, top = (int(rng.integers(size - side + 1)) for side in small.size)
        ground.paste(small, (left, top), small)
        return ground

    def _region(self, image: Image.Image, rng: np.random.Generator) -> Region:
        area = rng.uniform(*self.area)
        stretch = math.exp(rng.uniform(math.log(self.aspect[0]), math.log(self.aspect[1]))) ** 0.5
        width = min(1.0, math.sqrt(area) * stretch) * image.width
        height = min(1.0, math.sqrt(area) / stretch) * image.height
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        return (left, top, left + width, top + height)


def _heap(cutout: Image.Image, ground: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Copies of it, turned and a little brighter or darker, from the back to the front."""
    side = ground.width * rng.uniform(0.3, 0.6)  # of one of them, px
    upright = rng.random() < 0.5  # as packages stand on a shelf; fruit lies as it fell
    count = int(rng.integers(6, 1 + max(7, round(2.5 * (ground.width / side) ** 2))))
    for _ in range(count):
        scale = rng.uniform(0.85, 1.15) * side / max(cutout.size)
        size = (max(2, round(cutout.width * scale)), max(2, round(cutout.height * scale)))
        degrees = rng.normal(0, 4) if upright else rng.uniform(0, 360)
        piece = cutout.resize(size, Image.Resampling.BILINEAR).rotate(
            degrees, Image.Resampling.BILINEAR, expand=True
        )
        light = ImageEnhance.Brightness(piece.convert("RGB")).enhance(rng.uniform(0.7, 1.1))
        x, y = (round(place - side / 2) for place in rng.uniform(0, ground.width, 2))
        ground.paste(light, (x, y), piece.getchannel("A"))
    return ground


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


def _recompressed(square: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(square).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))
