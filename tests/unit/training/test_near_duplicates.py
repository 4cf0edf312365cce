"""The same photograph is found again, and another one is not taken for it."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from magpie.synthesis.backgrounds import background
from magpie.vision.perceptual_hash import SIDE, distances, perceptual_hash
from training.datasets import near_duplicates
from training.datasets.measured_picture import Measured, measure, measure_all
from training.datasets.near_duplicates import MAX_BITS, alike, groups

RNG = np.random.default_rng(0)


def scene(seed: int, size: int = 240) -> Image.Image:
    """A ground with some discs on it: no two alike."""
    rng = np.random.default_rng(seed)
    pixels = np.array(background(rng, size, size))
    y, x = np.mgrid[:size, :size]
    for _ in range(6):
        cx, cy, radius = *rng.uniform(0, size, 2), rng.uniform(size / 10, size / 4)
        pixels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def saved(image: Image.Image, path: Path, **options: object) -> Measured:
    image.save(path, **options)
    return measure(path)


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=20)
    return Image.open(data)


def brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.1)


def stretched(image: Image.Image) -> Image.Image:
    return image.resize((image.width, round(0.9 * image.height)), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("change", [smaller, jpeg, brighter, stretched])
def test_a_picture_saved_again_is_the_same_photograph(
    change: Callable[[Image.Image], Image.Image], tmp_path: Path
) -> None:
    originals = [scene(seed) for seed in range(12)]
    first = [saved(image, tmp_path / f"{n}.png") for n, image in enumerate(originals)]
    again = [saved(change(image), tmp_path / f"{n}.jpg", quality=80) for n, image in enumerate(originals)]
    assert groups([*first, *again]) == [(n, n + 12) for n in range(12)]


def test_other_pictures_turned_and_mirrored_ones_are_others(tmp_path: Path) -> None:
    image = scene(1)
    others = [
        scene(2),
        image.transpose(Image.Transpose.ROTATE_90),
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    ]
    assert groups([saved(o, tmp_path / f"{n}.png") for n, o in enumerate([image, *others])]) == []


def test_a_product_in_another_colour_is_another_picture(tmp_path: Path) -> None:
    y, x = np.mgrid[:200, :200]
    inside = (x - 100) ** 2 + (y - 100) ** 2 < 70**2
    measured = []
    for n, colour in enumerate([(170, 120, 60), (60, 150, 110), (60, 60, 60)]):
        pixels = np.full((200, 200, 3), 255, np.uint8)
        pixels[inside] = colour
        pixels[inside & (y % 20 < 8)] = (20, 20, 20)
        measured.append(saved(Image.fromarray(pixels), tmp_path / f"{n}.png"))
    hashes = np.array([picture.phash for picture in measured], np.uint64)
    assert distances(hashes, hashes).max() <= MAX_BITS  # the hash alone would take them for one
    assert groups(measured) == []


def test_pictures_that_show_nothing_are_compared_by_their_bytes_only(tmp_path: Path) -> None:
    white = Image.new("RGB", (64, 64), "white")
    grey = Image.new("RGB", (64, 64), (250, 250, 250))
    measured = [saved(p, tmp_path / f"{n}.png") for n, p in enumerate([white, grey, white])]
    assert groups(measured) == [(0, 2)]


def test_blocks_find_what_a_plain_loop_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(near_duplicates, "_ROWS", 3)
    monkeypatch.setattr(near_duplicates, "_COLUMNS", 5)
    monkeypatch.setattr(near_duplicates, "_PAIRS", 2)
    images = [scene(seed) for seed in range(9)]
    images += [smaller(images[1]), brighter(images[7]), smaller(brighter(images[1])), images[3]]
    measured = [saved(image, tmp_path / f"{n}.png") for n, image in enumerate(images)]
    parent = list(range(len(measured)))
    for one, other in combinations(range(len(measured)), 2):
        if groups([measured[one], measured[other]]):
            old, new = parent[other], parent[one]
            parent = [new if p == old else p for p in parent]
    plain = [tuple(n for n, p in enumerate(parent) if p == root) for root in sorted(set(parent))]
    assert groups(measured) == [group for group in plain if len(group) > 1]
    assert groups(measured) == [(1, 9, 11), (3, 12), (7, 10)]


def test_the_hash_is_that_of_the_naive_transform() -> None:
    luma = RNG.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    n = np.arange(SIDE)
    basis = np.cos(np.pi * np.outer(np.arange(8), n + 0.5) / SIDE)  # DCT-II, (8, SIDE)
    low = basis @ luma.astype(float) @ basis.T
    low[0] *= np.sqrt(0.5)
    low[:, 0] *= np.sqrt(0.5)
    bits = (low > np.median(low.ravel()[1:])).ravel()
    assert perceptual_hash(luma) == int("".join("1" if bit else "0" for bit in bits), 2)


def test_groups_are_named_for_the_development_split(tmp_path: Path) -> None:
    for n, image in enumerate([scene(1), scene(2), smaller(scene(1))]):
        image.save(tmp_path / f"{n}.png")
    measured, _ = measure_all(sorted(tmp_path.iterdir()))
    assert alike(measured) == {tmp_path / "0.png": "0.png", tmp_path / "2.png": "0.png"}


def test_measurements_are_kept_until_the_file_changes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        scene(n).save(path)
    cache = tmp_path / "run" / "pictures.jsonl"
    steps: list[int] = []
    first, _ = measure_all(paths, cache, lambda: steps.append(1))
    assert len(steps) == 3
    with cache.open("a") as file:
        file.write('{"version": 1, "key": "half a li')  # a run that was killed
    # Measured anew it would differ: so it was not.
    text = cache.read_text().replace(f'"sharpness": {first[paths[0]].sharpness}', '"sharpness": 1.5')
    cache.write_text(text)
    scene(7).save(paths[1])
    second, unreadable = measure_all(paths, cache)
    assert not unreadable
    assert second[paths[0]].sharpness == 1.5
    assert second[paths[1]] == measure(paths[1]) != first[paths[1]]
    assert second[paths[2]] == first[paths[2]]
    assert measure_all(paths, cache)[0] == second
