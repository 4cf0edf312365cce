"""Grounds of scenes: drawn by code, or a part of a photo."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]  # (H, W), in [0, 1]


def cloud(rng: np.random.Generator, width: int, height: int, octaves: int = 4) -> Field:
    """Smooth noise: octaves of coarse random grids, enlarged and added."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cells = 2 ** (octave + 1) + 1
        coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def _tint(rng: np.random.Generator, low: int = 30, high: int = 235) -> NDArray[np.float32]:
    """A rather grey colour, (3,)."""
    return np.asarray(rng.uniform(low, high) + rng.uniform(-35, 35, size=3), np.float32)


def _mix(field: Field, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(field[..., None] * a + (1 - field[..., None]) * b, np.float32)


def gradient(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    field = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) + 0.5
    return _mix(np.clip(field, 0, 1).astype(np.float32), _tint(rng), _tint(rng))


def noise(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    return _mix(cloud(rng, width, height, int(rng.integers(2, 7))), _tint(rng), _tint(rng))


def wood(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    y = np.linspace(0, rng.uniform(15, 60), height, dtype=np.float32)[:, None]
    grain = 0.5 + 0.5 * np.sin(y + 6 * cloud(rng, width, height, 3))
    light = np.array([rng.uniform(150, 225), rng.uniform(105, 160), rng.uniform(60, 110)], np.float32)
    planks = _mix(grain.astype(np.float32), light, light * np.float32(rng.uniform(0.6, 0.85)))
    for seam in np.linspace(0, height, int(rng.integers(2, 7)), dtype=int)[1:-1]:
        planks[seam : seam + 2] *= 0.5
    return planks.transpose(1, 0, 2)[:height, :width] if width == height and rng.random() < 0.5 else planks


def cloth(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    step = rng.uniform(6, 60)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    bend = 10 * cloud(rng, width, height, 2)
    weave = (((x + bend) // step) % 2 + ((y + bend) // step) % 2) / 2
    return (
        _mix(weave.astype(np.float32), _tint(rng), _tint(rng))
        * (0.8 + 0.3 * cloud(rng, width, height, 3))[..., None]
    )


def shelf(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    wall = gradient(rng, width, height) * (0.85 + 0.2 * cloud(rng, width, height, 2))[..., None]
    board = _tint(rng)
    thick = max(3, int(height * rng.uniform(0.02, 0.06)))
    for edge in np.linspace(0, height, int(rng.integers(2, 5)), dtype=int)[1:]:
        wall[max(0, edge - thick) : edge] = board
        wall[edge : edge + 2 * thick] *= 0.6
    return wall


GROUNDS: tuple[Callable[[np.random.Generator, int, int], NDArray[np.float32]], ...] = (
    gradient,
    noise,
    wood,
    cloth,
    shelf,
)


def background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A random ground, RGB of width x height px."""
    ground = GROUNDS[rng.integers(len(GROUNDS))](rng, width, height)
    return Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))


def part_of_photo(rng: np.random.Generator, photo: Image.Image, width: int, height: int) -> Image.Image:
    """A random part of a photo as a ground, RGB of width x height px.

    A part, because what is whole in the photo is rarely whole in it: the ground shows no product of its own.
    """
    share = rng.uniform(0.3, 0.75)
    wide, tall = photo.width * share, photo.height * share
    left, top = rng.uniform(0, photo.width - wide), rng.uniform(0, photo.height - tall)
    return photo.convert("RGB").resize(
        (width, height), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + tall)
    )
