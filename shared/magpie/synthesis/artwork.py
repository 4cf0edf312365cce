"""What is printed on a product: grounds, patterns, emblems and words, drawn from a seed."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

SYLLABLES = (
    "ba",
    "co",
    "da",
    "fi",
    "go",
    "ka",
    "lu",
    "mi",
    "no",
    "pe",
    "ra",
    "so",
    "ta",
    "vi",
    "zo",
    "el",
    "or",
)
PATTERNS = ("plain", "stripes", "dots", "checks", "waves", "chevrons", "blobs", "bands")
EMBLEMS = ("disc", "star", "polygon", "leaf", "drop", "ring", "sun")


@dataclass(frozen=True)
class Palette:
    """Colours of one design. `paper` and `ink` are made to contrast."""

    base: Colour
    second: Colour
    accent: Colour
    paper: Colour
    ink: Colour

    @classmethod
    def draw(cls, rng: np.random.Generator, variant: int = 0) -> Palette:
        """A palette from `rng`; every variant turns the hues by the golden angle and keeps the rest."""
        hue = float(rng.random()) + variant * 0.381966
        spread = float(rng.choice([0.08, 0.33, 0.5]))
        saturation, value = float(rng.uniform(0.25, 0.95)), float(rng.uniform(0.35, 0.95))

        def colour(h: float, s: float, v: float) -> Colour:
            red, green, blue = colorsys.hsv_to_rgb(h % 1.0, min(1.0, s), min(1.0, v))
            return round(255 * red), round(255 * green), round(255 * blue)

        dark_paper = bool(rng.random() < 0.3)
        return cls(
            base=colour(hue, saturation, value),
            second=colour(hue + spread, saturation * 0.9, 1.15 - value * 0.7),
            accent=colour(hue + 0.5 + spread / 2, 0.9, 0.9),
            paper=colour(hue, 0.4, 0.2) if dark_paper else colour(hue, 0.08, 0.97),
            ink=colour(hue, 0.06, 0.98) if dark_paper else colour(hue + spread, 0.7, 0.25),
        )


def word(rng: np.random.Generator) -> str:
    """A brand-like word of two or three syllables."""
    text = "".join(SYLLABLES[i] for i in rng.integers(len(SYLLABLES), size=int(rng.integers(2, 4))))
    return text.upper() if rng.random() < 0.5 else text.capitalize()


def pattern(rng: np.random.Generator, palette: Palette, width: int, height: int) -> Image.Image:  # noqa: PLR0912 - one branch a kind
    """A printed ground, RGB of width x height px."""
    image = Image.new("RGB", (width, height), palette.base)
    draw = ImageDraw.Draw(image)
    kind = PATTERNS[rng.integers(len(PATTERNS))]
    step = max(4, round(max(width, height) * float(rng.uniform(0.06, 0.2))))
    reach = width + height
    if kind == "stripes":
        lean = float(rng.uniform(-1, 1))
        for x in range(-reach, reach, 2 * step):
            draw.line([(x, 0), (x + lean * height, height)], palette.second, step)
    elif kind == "dots":
        radius = step * float(rng.uniform(0.2, 0.45))
        for row, y in enumerate(range(0, height + step, step)):
            for x in range((row % 2) * step // 2, width + step, step):
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], palette.second)
    elif kind == "checks":
        for row, y in enumerate(range(0, height, step)):
            for x in range((row % 2) * step, width, 2 * step):
                draw.rectangle([x, y, x + step - 1, y + step - 1], palette.second)
    elif kind in ("waves", "chevrons"):
        for y in range(-step, height + step, 2 * step):
            xs = range(0, width + step, max(2, step // 4 if kind == "waves" else step))
            swing = [math.sin(x / step * 2) if kind == "waves" else (i % 2) * 2 - 1 for i, x in enumerate(xs)]
            line = [(x, y + step * s * 0.6) for x, s in zip(xs, swing, strict=True)]
            draw.line(line, palette.second, max(2, step // 2), joint="curve")
    elif kind == "blobs":
        for _ in range(int(rng.integers(6, 22))):
            left, top, wide = rng.uniform(0, width), rng.uniform(0, height), step * rng.uniform(0.6, 2.4)
            fill = palette.second if rng.random() < 0.7 else palette.accent
            draw.ellipse([left, top, left + wide, top + wide], fill)
    elif kind == "bands":
        edges = np.sort(rng.uniform(0, height, size=4))
        draw.rectangle([0, edges[0], width, edges[1]], palette.second)
        draw.rectangle([0, edges[2], width, edges[3]], palette.accent)
    return image


def emblem(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    radius: float,
    *,
    fill: Colour,
    ground: Colour,
) -> None:
    """Draw one logo-like sign of `radius` px around `centre`."""
    x, y = centre
    kind = EMBLEMS[rng.integers(len(EMBLEMS))]
    count = int(rng.integers(3, 9))
    turn = float(rng.uniform(0, math.tau))
    circle = [x - radius, y - radius, x + radius, y + radius]

    def star(points: int, inner: float) -> list[tuple[float, float]]:
        radii = [radius, radius * inner] * points
        return [
            (x + r * math.cos(turn + math.pi * i / points), y + r * math.sin(turn + math.pi * i / points))
            for i, r in enumerate(radii)
        ]

    if kind == "disc":
        draw.ellipse(circle, fill)
        draw.pieslice(circle, math.degrees(turn), math.degrees(turn) + 30.0 * count, fill=ground)
    elif kind == "star":
        draw.polygon(star(count, float(rng.uniform(0.3, 0.6))), fill)
    elif kind == "polygon":
        draw.polygon(star(count, math.cos(math.pi / count)), fill)
        small = radius * 0.45
        draw.ellipse([x - small, y - small, x + small, y + small], ground)
    elif kind == "leaf":
        draw.chord(circle, math.degrees(turn), math.degrees(turn) + 150, fill)
        draw.chord(circle, math.degrees(turn) + 180, math.degrees(turn) + 330, fill)
    elif kind == "drop":
        draw.polygon(
            [(x, y - radius), (x - radius * 0.75, y + radius * 0.3), (x + radius * 0.75, y + radius * 0.3)],
            fill,
        )
        draw.ellipse([x - radius * 0.8, y - radius * 0.4, x + radius * 0.8, y + radius], fill)
    elif kind == "ring":
        draw.ellipse(circle, outline=fill, width=max(2, round(radius * float(rng.uniform(0.15, 0.5)))))
    else:
        draw.polygon(star(count + 6, 0.65), fill)
        small = radius * 0.5
        draw.ellipse([x - small, y - small, x + small, y + small], ground)


def lettering(
    draw: ImageDraw.ImageDraw, text: str, box: tuple[float, float, float, float], fill: Colour
) -> None:
    """Write `text` as large as fits the box (x0, y0, x1, y1) px, centred."""
    width, height = box[2] - box[0], box[3] - box[1]
    probe = ImageFont.load_default(100)
    left, top, right, bottom = probe.getbbox(text)
    size = 100 * min(width / max(1.0, right - left), height / max(1.0, bottom - top))
    if size >= 4:
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        draw.text(centre, text, fill, ImageFont.load_default(size), anchor="mm")


def artwork(rng: np.random.Generator, palette: Palette, width: int, height: int) -> Image.Image:
    """A whole printed face: ground, label, emblem, brand and small print. RGB of width x height px."""
    image = pattern(rng, palette, width, height)
    draw = ImageDraw.Draw(image)
    top, bottom = height * float(rng.uniform(0.1, 0.3)), height * float(rng.uniform(0.65, 0.92))
    inset = width * float(rng.choice([0.0, 0.06, 0.15]))
    style = rng.random()
    if style < 0.4:
        draw.rectangle([inset, top, width - inset, bottom], palette.paper)
    elif style < 0.6:
        draw.ellipse(
            [width * 0.08, top, width * 0.92, bottom], palette.paper, palette.accent, max(1, width // 60)
        )
    elif style < 0.8:
        draw.rounded_rectangle([width * 0.08, top, width * 0.92, bottom], width * 0.1, palette.paper)
    else:
        bottom = top + (bottom - top) * 0.6
        draw.rectangle([0, top, width, bottom], palette.paper)
    tall = bottom - top
    sign_first = rng.random() < 0.6
    sign_y = top + tall * (0.3 if sign_first else 0.7)
    text_y = top + tall * (0.55 if sign_first else 0.12)
    emblem(
        rng,
        draw,
        (width / 2, sign_y),
        min(width * 0.25, tall * 0.22),
        fill=palette.accent,
        ground=palette.paper,
    )
    lettering(draw, word(rng), (width * 0.2, text_y, width * 0.8, text_y + tall * 0.2), palette.ink)
    if rng.random() < 0.7:
        line_y = text_y + tall * 0.25
        lettering(
            draw,
            f"{word(rng)} {word(rng)}",
            (width * 0.25, line_y, width * 0.75, line_y + tall * 0.08),
            palette.ink,
        )
    if rng.random() < 0.4:
        lettering(
            draw,
            f"{int(rng.integers(1, 99))}0 g",
            (width * 0.3, height * 0.93, width * 0.7, height * 0.98),
            palette.paper,
        )
    return image
