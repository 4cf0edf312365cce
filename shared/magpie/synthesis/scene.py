"""Paste cut-outs into a ground as a camera would see them; boxes come from the masks, so they are exact."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from magpie.geometry import Box, iou

Range = tuple[float, float]
OPAQUE = 128  # alpha from which a pixel belongs to the object


@dataclass(frozen=True)
class SceneStyle:
    """How wild the scenes are. Every value is the limit or the range of a uniform draw."""

    extent: Range = (0.2, 0.8)  # an object's longer side, as a share of the ground's shorter side
    rotation: float = 20.0  # degrees to either side
    perspective: float = 0.15  # how far a corner moves, as a share of the object's longer side
    overlap: float = 0.2  # IoU with earlier objects that a place should stay under
    light: float = 0.35  # brightness and fall-off
    cast: float = 0.1  # colour of the light
    shadow: float = 0.6  # darkness
    blur: float = 1.2  # px radius
    noise: float = 8.0  # standard deviation, of 255
    jpeg: tuple[int, int] = (50, 95)  # quality


DEFAULT_STYLE = SceneStyle()


@dataclass(frozen=True)
class PlacedObject:
    """An object as it can be seen: the extent of its visible pixels, and their share of all its pixels."""

    source: int  # index of the cut-out
    box: Box
    visible: float  # in (0, 1]; less if another object or the frame hides a part


@dataclass(frozen=True)
class Scene:
    image: Image.Image  # RGB
    objects: tuple[PlacedObject, ...]  # only those of which something can be seen
    owner: NDArray[np.int16]  # (H, W): index of the cut-out seen at each pixel, -1 for the ground


def compose(
    rng: np.random.Generator,
    cutouts: Sequence[Image.Image],
    ground: Image.Image,
    style: SceneStyle = DEFAULT_STYLE,
) -> Scene:
    """Place RGBA cut-outs, later ones in front, on a ground and photograph it. `rng` decides all."""
    image = ground.convert("RGB")
    owner = np.full((image.height, image.width), -1, np.int16)
    pixels: list[int] = []  # of each object, hidden ones included
    taken: list[Box] = []
    for source, cutout in enumerate(cutouts):
        patch = warped(rng, cutout, rng.uniform(*style.extent) * min(image.size), style)
        place, box = _place(rng, patch, image.size, taken, style.overlap)
        taken.append(box)
        _cast_shadow(rng, image, patch, place, style)
        image.paste(patch.convert("RGB"), place, patch.getchannel("A"))
        solid = np.asarray(patch.getchannel("A")) >= OPAQUE
        pixels.append(int(solid.sum()))
        _claim(owner, solid, place, source)
    objects = tuple(
        PlacedObject(source, extent_of(owner == source), int((owner == source).sum()) / pixels[source])
        for source in range(len(cutouts))
        if (owner == source).any()
    )
    return Scene(photographed(rng, image, style), objects, owner)


def extent_of(mask: NDArray[np.bool_]) -> Box:
    """The tightest box round the true pixels of a mask (H, W) that has some, as fractions."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return Box(columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)


def warped(
    rng: np.random.Generator, cutout: Image.Image, longer_side: float, style: SceneStyle
) -> Image.Image:
    """The cut-out turned and seen at an angle, about `longer_side` px long, on a canvas that holds it."""
    scale = longer_side / max(cutout.size)
    width, height = max(2, round(cutout.width * scale)), max(2, round(cutout.height * scale))
    small = cutout.convert("RGBa").resize(
        (width, height), Image.Resampling.BILINEAR
    )  # premultiplied: no pale fringe
    angle = math.radians(rng.uniform(-style.rotation, style.rotation))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    quad = (corners - corners.mean(axis=0)) @ turn.T
    quad += rng.uniform(-1, 1, size=(4, 2)) * style.perspective * longer_side * 0.5
    quad -= quad.min(axis=0)
    size = np.ceil(quad.max(axis=0)).astype(int) + 1
    transform = perspective_coefficients(quad, corners)
    return small.transform(
        (int(size[0]), int(size[1])), Image.Transform.PERSPECTIVE, transform, Image.Resampling.BICUBIC
    ).convert("RGBA")


def perspective_coefficients(to: NDArray[np.float64], source: NDArray[np.float64]) -> tuple[float, ...]:
    """Pillow's eight numbers that send each corner in `to` (4, 2) to its corner in `source` (4, 2)."""
    rows, right = [], []
    for (x, y), (u, v) in zip(to, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return tuple(float(value) for value in np.linalg.solve(np.array(rows), np.array(right)))


def photographed(rng: np.random.Generator, image: Image.Image, style: SceneStyle) -> Image.Image:
    """Uneven coloured light, blur, sensor noise and JPEG. Nothing moves."""
    light = rng.uniform(1 - style.light, 1 + style.light * 0.6)
    cast = 1 + rng.uniform(-style.cast, style.cast, size=3)
    angle, fall = rng.uniform(0, math.tau), rng.uniform(0, style.light)
    x = np.linspace(-1, 1, image.width)[None, :]
    y = np.linspace(-1, 1, image.height)[:, None]
    slope = 1 + fall * (math.cos(angle) * x + math.sin(angle) * y) / math.sqrt(2)
    blurred = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, style.blur)))
    pixels = np.asarray(blurred, np.float32) * (light * slope[..., None] * cast).astype(np.float32)
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(0, style.noise))
    quality = int(rng.integers(style.jpeg[0], style.jpeg[1] + 1))
    with io.BytesIO() as file:
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
        return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def _place(
    rng: np.random.Generator, patch: Image.Image, size: tuple[int, int], taken: list[Box], overlap: float
) -> tuple[tuple[int, int], Box]:
    """Upper left corner in px for the patch, centre in the middle 80 %: the emptiest of eight places."""
    best: tuple[float, tuple[int, int], Box] | None = None
    for _ in range(8):
        x = round(rng.uniform(0.1, 0.9) * size[0] - patch.width / 2)
        y = round(rng.uniform(0.1, 0.9) * size[1] - patch.height / 2)
        # Rather inside the frame than across its edge, where it fits.
        if rng.random() < 0.8:
            x = min(max(x, 0), max(0, size[0] - patch.width))
            y = min(max(y, 0), max(0, size[1] - patch.height))
        box = Box(x / size[0], y / size[1], (x + patch.width) / size[0], (y + patch.height) / size[1])
        worst = max((float(iou(np.array([box]), np.array([other]))[0, 0]) for other in taken), default=0.0)
        if best is None or worst < best[0]:
            best = (worst, (x, y), box)
        if worst <= overlap:
            break
    assert best is not None  # the loop ran
    return best[1], best[2]


def _cast_shadow(
    rng: np.random.Generator,
    image: Image.Image,
    patch: Image.Image,
    place: tuple[int, int],
    style: SceneStyle,
) -> None:
    reach = max(patch.size) * 0.08
    canvas = Image.new("L", image.size)
    offset = (place[0] + round(rng.uniform(-1, 1) * reach), place[1] + round(rng.uniform(0, 1) * reach))
    canvas.paste(patch.getchannel("A"), offset)
    soft = canvas.filter(ImageFilter.BoxBlur(max(1.0, reach * rng.uniform(0.3, 1.2))))
    darkness = rng.uniform(0, style.shadow)
    veil = soft.point([round(255 - darkness * alpha) for alpha in range(256)])
    image.paste(ImageChops.multiply(image, Image.merge("RGB", (veil, veil, veil))))


def _claim(owner: NDArray[np.int16], solid: NDArray[np.bool_], place: tuple[int, int], source: int) -> None:
    """Mark the pixels of a patch, as far as they lie in the frame."""
    height, width = owner.shape
    x0, y0 = max(0, place[0]), max(0, place[1])
    x1, y1 = min(width, place[0] + solid.shape[1]), min(height, place[1] + solid.shape[0])
    if x0 < x1 and y0 < y1:
        inside = solid[y0 - place[1] : y1 - place[1], x0 - place[0] : x1 - place[0]]
        owner[y0:y1, x0:x1][inside] = source
