"""Packshots drawn by code: `render("bottle", seed=7, size=256)` is always the same bottle, on a clear ground.

A family says which parts a product has: outlines in a unit square (x right, y down), what covers each and how
light falls on it. The seed picks proportions, colours and print. Training and the sample shop draw from
different families, so the shop shows products that no model has seen.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from magpie.errors import InvalidArgument
from magpie.synthesis.artwork import Colour, Palette, artwork, pattern

Point = tuple[float, float]
Cover = Literal["print", "pattern"] | Colour
Light = Literal["round", "ball", "flat"]

SUPERSAMPLE = 2


@dataclass(frozen=True)
class Part:
    """One piece: its outline (unit square), its cover, and whether it is lit as cylinder, ball or plane."""

    outline: Sequence[Point]
    cover: Cover
    light: Light = "flat"
    shade: float = 1.0  # brightness against the other parts
    hole: Sequence[Point] = ()


Family = Callable[[np.random.Generator, Palette], list[Part]]


def rectangle(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> list[Point]:
    """Rounded rectangle, clockwise."""
    if radius <= 0:
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    corners = [
        (x1 - radius, y0 + radius, -90),
        (x1 - radius, y1 - radius, 0),
        (x0 + radius, y1 - radius, 90),
        (x0 + radius, y0 + radius, 180),
    ]
    return [
        (x + radius * math.cos(math.radians(start + step)), y + radius * math.sin(math.radians(start + step)))
        for x, y, start in corners
        for step in range(0, 91, 15)
    ]


def ellipse(x: float, y: float, rx: float, ry: float) -> list[Point]:
    return [(x + rx * math.cos(math.tau * i / 48), y + ry * math.sin(math.tau * i / 48)) for i in range(48)]


def lathe(profile: Sequence[tuple[float, float]]) -> list[Point]:
    """A body of revolution seen from the side: (y, half width) from top to bottom, joined smoothly."""
    ys, halves = np.array(profile, np.float64).T
    fine = np.linspace(ys[0], ys[-1], 64)
    width = np.interp(fine, ys, halves)
    width[1:-1] = (width[:-2] + 2 * width[1:-1] + width[2:]) / 4
    right = [(0.5 + float(w), float(y)) for y, w in zip(fine, width, strict=True)]
    return right + [(1.0 - x, y) for x, y in reversed(right)]


def bottle(rng: np.random.Generator, palette: Palette) -> list[Part]:
    half, neck = rng.uniform(0.12, 0.2), rng.uniform(0.04, 0.07)
    shoulder = rng.uniform(0.25, 0.45)
    body = lathe([(0.12, neck), (shoulder - 0.1, neck), (shoulder, half), (0.97, half), (0.98, half * 0.9)])
    label = rectangle(0.5 - half, shoulder + 0.06, 0.5 + half, float(rng.uniform(0.8, 0.9)))
    cap = rectangle(0.5 - neck * 1.15, 0.03, 0.5 + neck * 1.15, 0.13, 0.01)
    return [
        Part(body, palette.second, "round"),
        Part(label, "print", "round"),
        Part(cap, palette.accent, "round"),
    ]


def carton(rng: np.random.Generator, palette: Palette) -> list[Part]:
    wide, tall, depth = rng.uniform(0.35, 0.55), rng.uniform(0.5, 0.8), rng.uniform(0.08, 0.2)
    x0, y1, rise = 0.5 - (wide + depth) / 2, 0.96, depth * 0.4
    x1, y0 = x0 + wide, 0.96 - tall
    parts = [
        Part([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], "print"),
        Part([(x1, y0), (x1 + depth, y0 - rise), (x1 + depth, y1 - rise), (x1, y1)], "pattern", shade=0.7),
    ]
    if rng.random() < 0.5:  # a gable top, as on milk
        ridge = y0 - 0.14
        parts.append(
            Part(
                [(x0, y0), (x0 + depth / 2, ridge), (x1 + depth / 2, ridge), (x1, y0)],
                palette.second,
                shade=0.92,
            )
        )
        parts.append(
            Part([(x1, y0), (x1 + depth / 2, ridge), (x1 + depth, y0 - rise)], palette.second, shade=0.65)
        )
    else:
        parts.append(
            Part(
                [(x0, y0), (x0 + depth, y0 - rise), (x1 + depth, y0 - rise), (x1, y0)],
                palette.second,
                shade=1.1,
            )
        )
    return parts


def jar(rng: np.random.Generator, palette: Palette) -> list[Part]:
    half, top = rng.uniform(0.22, 0.34), rng.uniform(0.15, 0.35)
    body = lathe([(top, half * 0.85), (top + 0.08, half), (0.92, half), (0.97, half * 0.85)])
    lid = rectangle(0.5 - half * 0.9, top - 0.1, 0.5 + half * 0.9, top + 0.02, 0.02)
    label = rectangle(0.5 - half, top + 0.14, 0.5 + half, 0.85)
    return [
        Part(body, palette.base, "round"),
        Part(label, "print", "round"),
        Part(lid, palette.accent, "round"),
    ]


def tube(rng: np.random.Generator, palette: Palette) -> list[Part]:
    wide, narrow = rng.uniform(0.16, 0.24), rng.uniform(0.09, 0.14)
    body = lathe([(0.04, wide), (0.08, wide), (0.8, narrow * 1.3), (0.84, narrow)])
    return [
        Part(body, "print", "round"),
        Part(rectangle(0.5 - narrow, 0.83, 0.5 + narrow, 0.97, 0.01), palette.accent, "round"),
    ]


def pouch(rng: np.random.Generator, palette: Palette) -> list[Part]:
    half, top = rng.uniform(0.24, 0.38), rng.uniform(0.05, 0.2)
    teeth = 14
    edge = [(0.5 - half + 2 * half * i / teeth, top + 0.015 * (i % 2)) for i in range(teeth + 1)]
    side = [(0.5 + half * 0.93, 0.5), (0.5 + half, 0.96), (0.5 - half, 0.96), (0.5 - half * 0.93, 0.5)]
    seal = rectangle(0.5 - half, top + 0.02, 0.5 + half, top + 0.07)
    return [Part(edge + side, "print", "round"), Part(seal, palette.second, "flat", 0.85)]


def ball(rng: np.random.Generator, palette: Palette) -> list[Part]:
    radius = rng.uniform(0.35, 0.46)
    outline = ellipse(0.5, 0.5, radius, radius * rng.uniform(0.75, 1.0))
    valve = ellipse(float(rng.uniform(0.4, 0.6)), 0.4, 0.012, 0.012)
    return [Part(outline, "pattern" if rng.random() < 0.6 else "print", "ball"), Part(valve, palette.ink)]


def book(rng: np.random.Generator, palette: Palette) -> list[Part]:
    wide, tall, thick = rng.uniform(0.45, 0.65), rng.uniform(0.65, 0.85), rng.uniform(0.02, 0.07)
    x0, y0 = 0.5 - wide / 2, 0.5 - tall / 2
    cover = rectangle(x0, y0, x0 + wide, y0 + tall)
    pages = [
        (x0 + wide, y0 + 0.01),
        (x0 + wide + thick, y0 + thick),
        (x0 + wide + thick, y0 + tall + thick),
        (x0 + thick, y0 + tall + thick),
        (x0, y0 + tall),
    ]
    spine = rectangle(x0, y0, x0 + wide * 0.07, y0 + tall)
    return [
        Part([*pages, (x0 + wide, y0 + tall)], (235, 230, 215)),
        Part(cover, "print"),
        Part(spine, palette.second, shade=0.8),
    ]


def shoe(rng: np.random.Generator, palette: Palette) -> list[Part]:
    heel, toe = rng.uniform(0.25, 0.4), rng.uniform(0.52, 0.6)
    upper = [
        (0.06, heel),
        (0.12, heel - 0.03),
        (0.32, heel),
        (0.42, heel + 0.08),
        (0.62, toe - 0.06),
        (0.8, toe),
        (0.92, toe + 0.05),
        (0.95, 0.72),
        (0.05, 0.72),
    ]
    sole = rectangle(0.04, 0.7, 0.97, 0.7 + float(rng.uniform(0.05, 0.12)), 0.02)
    flash = [(0.3, 0.68), (0.38, 0.5), (0.52, 0.6), (0.7, 0.56), (0.48, 0.69)]
    laces = [
        Part(
            rectangle(0.38 + 0.06 * i, heel + 0.07 + 0.03 * i, 0.47 + 0.06 * i, heel + 0.09 + 0.03 * i),
            palette.paper,
        )
        for i in range(3)
    ]
    return [Part(upper, "pattern", "ball"), Part(sole, palette.paper), Part(flash, palette.accent), *laces]


def can(rng: np.random.Generator, palette: Palette) -> list[Part]:
    half, top = rng.uniform(0.18, 0.28), rng.uniform(0.06, 0.3)
    body = lathe([(top, half * 0.85), (top + 0.05, half), (0.93, half), (0.97, half * 0.88)])
    metal = (205, 208, 212)
    return [
        Part(body, "print", "round"),
        Part(ellipse(0.5, top, half * 0.85, 0.025), metal),
        Part(ellipse(0.5, top, half * 0.7, 0.015), (150, 153, 158)),
        Part(ellipse(0.5, top, half * 0.2, 0.008), palette.accent),
    ]


def mug(rng: np.random.Generator, palette: Palette) -> list[Part]:
    half, tall = rng.uniform(0.24, 0.32), rng.uniform(0.5, 0.75)
    top = 0.95 - tall
    x = 0.42
    body = rectangle(x - half, top, x + half, 0.95, 0.05)
    grip = ellipse(x + half, top + tall * 0.5, 0.2, tall * 0.32)
    hole = ellipse(x + half, top + tall * 0.5, 0.13, tall * 0.22)
    rim = ellipse(x, top + 0.015, half, 0.035)
    return [
        Part(grip, palette.base, hole=hole),
        Part(body, "print", "round"),
        Part(rim, palette.paper),
        Part(ellipse(x, top + 0.02, half * 0.93, 0.025), palette.ink, shade=0.6),
    ]


def shirt(rng: np.random.Generator, palette: Palette) -> list[Part]:
    sleeve, waist = rng.uniform(0.35, 0.6), rng.uniform(0.22, 0.28)
    left = [
        (0.38, 0.08),
        (0.25, 0.12),
        (0.03, sleeve - 0.05),
        (0.15, sleeve + 0.05),
        (0.5 - waist, 0.32),
        (0.5 - waist, 0.94),
    ]
    outline = left + [(1 - x, y) for x, y in reversed(left)]
    neck = ellipse(0.5, 0.08, 0.12, float(rng.uniform(0.03, 0.08)))
    crest = rectangle(0.5 - waist * 0.7, 0.3, 0.5 + waist * 0.7, 0.7)
    return [Part(outline, "pattern", "round"), Part(crest, "print"), Part(neck, palette.ink, shade=0.7)]


def lamp(rng: np.random.Generator, palette: Palette) -> list[Part]:
    top, wide, foot = rng.uniform(0.1, 0.22), rng.uniform(0.26, 0.4), rng.uniform(0.14, 0.24)
    joint = rng.uniform(0.4, 0.52)
    hood = lathe([(0.04, top), (joint, wide)])
    stem = lathe([(joint, 0.02), (0.6, rng.uniform(0.02, 0.1)), (0.75, rng.uniform(0.04, 0.16)), (0.9, 0.03)])
    return [
        Part(stem, palette.second, "round"),
        Part(rectangle(0.5 - foot, 0.9, 0.5 + foot, 0.96, 0.02), palette.accent, "round"),
        Part(hood, "pattern", "round"),
    ]


def backpack(rng: np.random.Generator, palette: Palette) -> list[Part]:
    half = rng.uniform(0.28, 0.36)
    body = lathe([(0.1, half * 0.5), (0.16, half * 0.85), (0.35, half), (0.9, half), (0.96, half * 0.9)])
    pocket = rectangle(0.5 - half * 0.8, 0.55, 0.5 + half * 0.8, 0.9, 0.05)
    zip_line = rectangle(0.5 - half * 0.8, 0.36, 0.5 + half * 0.8, 0.38)
    loop = ellipse(0.5, 0.1, 0.1, 0.07)
    return [
        Part(loop, palette.ink, hole=ellipse(0.5, 0.1, 0.06, 0.04)),
        Part(body, palette.base, "round"),
        Part(pocket, "print", "round"),
        Part(zip_line, palette.ink),
    ]


def camera(rng: np.random.Generator, palette: Palette) -> list[Part]:
    top, radius = rng.uniform(0.3, 0.36), rng.uniform(0.16, 0.22)
    x = rng.uniform(0.42, 0.62)
    body = rectangle(0.05, top, 0.95, 0.82, 0.05)
    hump = [(x - 0.16, top + 0.02), (x - 0.1, top - 0.1), (x + 0.1, top - 0.1), (x + 0.16, top + 0.02)]
    lens = [
        Part(ellipse(x, 0.58, radius * f, radius * f), colour, "ball")
        for f, colour in (
            (1.0, (40, 40, 44)),
            (0.8, palette.accent),
            (0.7, (25, 25, 30)),
            (0.4, (60, 70, 110)),
        )
    ]
    return [
        Part(hump, palette.second),
        Part(body, "pattern", "round"),
        Part(rectangle(0.05, top, 0.95, top + 0.1), palette.second),
        *lens,
        Part(rectangle(0.12, top - 0.04, 0.22, top + 0.01, 0.01), palette.accent),
    ]


TRAINING_FAMILIES = ("bottle", "carton", "jar", "tube", "pouch", "ball", "book", "shoe")
SHOP_FAMILIES = ("can", "mug", "shirt", "lamp", "backpack", "camera")
FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (
        bottle,
        carton,
        jar,
        tube,
        pouch,
        ball,
        book,
        shoe,
        can,
        mug,
        shirt,
        lamp,
        backpack,
        camera,
    )
}


def render(family: str, seed: int, size: int = 256, variant: int = 0) -> Image.Image:
    """One product, RGBA, `size` px square, on a clear ground. A variant has the same shape in other colours.

    Raises InvalidArgument for an unknown family.
    """
    if family not in FAMILIES:
        raise InvalidArgument("family", f"{family!r} is none of {', '.join(FAMILIES)}")
    rng = np.random.default_rng([zlib.crc32(family.encode()), seed])
    palette = Palette.draw(rng, variant)
    side = size * SUPERSAMPLE
    canvas = Image.new("RGBA", (side, side))
    for part in FAMILIES[family](rng, palette):
        canvas.alpha_composite(_painted(part, rng, palette, side))
    return canvas.resize((size, size), Image.Resampling.BOX)


def _painted(part: Part, rng: np.random.Generator, palette: Palette, side: int) -> Image.Image:
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    draw.polygon([(x * side, y * side) for x, y in part.outline], 255)
    if part.hole:
        draw.polygon([(x * side, y * side) for x, y in part.hole], 0)
    layer = Image.new("RGBA", (side, side))
    x0, y0, x1, y1 = mask.getbbox() or (0, 0, 1, 1)
    width, height = x1 - x0, y1 - y0
    if part.cover == "print":
        cover = artwork(rng, palette, width, height)
    elif part.cover == "pattern":
        cover = pattern(rng, palette, width, height)
    else:
        cover = Image.new("RGB", (width, height), part.cover)
    lit = np.asarray(cover, np.float32) * (part.shade * _light(part.light, width, height))[..., None]
    layer.paste(Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)), (x0, y0))
    layer.putalpha(mask)
    return layer


def _light(kind: Light, width: int, height: int) -> NDArray[np.float32]:
    """Brightness factor (height, width): light comes from the upper left."""
    u = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    v = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    if kind == "round":
        gloss = 0.35 * np.exp(-(((u + 0.45) / 0.12) ** 2))
        return np.asarray(1.0 - 0.45 * u * u + gloss + 0 * v, np.float32)
    if kind == "ball":
        gloss = 0.4 * np.exp(-((u + 0.4) ** 2 + (v + 0.4) ** 2) / 0.06)
        return np.asarray(1.05 - 0.3 * (u * u + v * v) - 0.12 * (u + v) + gloss, np.float32)
    return np.asarray(1.0 - 0.06 * (u + v), np.float32)
