"""What is measured of each picture before training, in one reading of its file, and kept for the next time.

A measurement takes a millisecond for a small picture and some fifty for a phone photo, so it is kept as a
line of JSON, about 2 kB, and taken from there as long as the file keeps its size and time.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from magpie.errors import UndecodableImage
from magpie.vision.decode import decode
from magpie.vision.perceptual_hash import SIDE, perceptual_hash, shrunk
from magpie.vision.quality import quality

QUALITY_SIDE = 256  # px, longer side: sharpness compares between pictures of one size only
COLOUR_SIDE = 8  # px
WHITE = 250  # luma from which nothing is drawn any more
_DECODED = 2 * QUALITY_SIDE  # px, longer side
_VERSION = 1  # of the lines that are kept; another one is measured anew


@dataclass(frozen=True)
class Measured:
    """One picture, upright."""

    sha256: str  # of the file's bytes, lower-case hexadecimal
    width: int  # px, as it is stored
    height: int
    sharpness: float  # variance of the Laplacian at QUALITY_SIDE
    brightness: float  # mean luma, [0, 255]
    white: float  # share of the pixels with a luma of WHITE or more, [0, 1]
    phash: int  # 64 bits, see `perceptual_hash`
    luma: bytes  # (SIDE, SIDE) uint8
    colour: bytes  # (COLOUR_SIDE, COLOUR_SIDE, 3) uint8


def measure(path: Path) -> Measured:
    """Raises UndecodableImage, or OSError."""
    photo = decode(path.read_bytes(), _DECODED)
    image = Image.fromarray(np.ascontiguousarray(photo.pixels))
    shrink = QUALITY_SIDE / max(image.size)
    if shrink < 1:
        size = (max(3, round(image.width * shrink)), max(3, round(image.height * shrink)))
        image = image.resize(size, Image.Resampling.BOX)
    pixels = np.asarray(image)
    measured = quality(pixels)
    luma = np.asarray(image.convert("L"))
    small = shrunk(photo.pixels, SIDE, "L")
    return Measured(
        sha256=photo.sha256,
        width=photo.width,
        height=photo.height,
        sharpness=round(measured.sharpness, 2),
        brightness=round(measured.brightness, 2),
        white=round(float((luma >= WHITE).mean()), 4),
        phash=perceptual_hash(small),
        luma=small.tobytes(),
        colour=shrunk(photo.pixels, COLOUR_SIDE, "RGB").tobytes(),
    )


def measure_all(
    paths: Iterable[Path], cache: Path | None = None, advance: Callable[[], None] = lambda: None
) -> tuple[dict[Path, Measured], dict[Path, str]]:
    """(measured, unreadable: path -> why). `advance` is called once a path; `cache` is read, and added to."""
    paths = list(dict.fromkeys(paths))
    kept = _read(cache)
    measured: dict[Path, Measured] = {}
    unreadable: dict[Path, str] = {}
    fresh: list[tuple[str, Measured]] = []

    def one(path: Path) -> tuple[str, Measured | None, str]:
        key = ""
        try:
            key = _key(path)
            return key, kept.get(key) or measure(path), ""
        except UndecodableImage as error:
            return key, None, str(error).removeprefix(f"{error.field}: ")
        except OSError as error:
            return key, None, f"cannot be read: {error.strerror or error}"

    # Decoding gives the interpreter's lock away.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, (key, result, problem) in zip(paths, pool.map(one, paths), strict=True):
            if result is None:
                unreadable[path] = problem
            else:
                measured[path] = result
                if key not in kept:
                    fresh.append((key, result))
            advance()
    if cache is not None and fresh:
        _add(cache, fresh)
    return measured, unreadable


def pixels_of(values: bytes, *shape: int) -> NDArray[np.uint8]:
    """`luma` or `colour` as an array."""
    return np.frombuffer(values, np.uint8).reshape(shape)


def _key(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _read(cache: Path | None) -> dict[str, Measured]:
    """What was kept. A line that a killed run left half written is not taken."""
    if cache is None or not cache.is_file():
        return {}
    kept = {}
    names = {field.name for field in fields(Measured)}
    for line in cache.read_text("utf-8").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if values.pop("version", None) == _VERSION and values.keys() == names | {"key"}:
            key = values.pop("key")
            for name in ("luma", "colour"):
                values[name] = base64.b64decode(values[name])
            kept[key] = Measured(**values)
    return kept


def _add(cache: Path, fresh: list[tuple[str, Measured]]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    torn = cache.is_file() and cache.stat().st_size > 0 and not cache.read_bytes().endswith(b"\n")
    with cache.open("a", encoding="utf-8") as file:
        file.write("\n" if torn else "")
        for key, measured in fresh:
            values = {"version": _VERSION, "key": key, **asdict(measured)}
            for name in ("luma", "colour"):
                values[name] = base64.b64encode(values[name]).decode()
            file.write(json.dumps(values) + "\n")
