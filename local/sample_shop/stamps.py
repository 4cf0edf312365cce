"""Cut-out photographs from Debian's package tuxpaint-stamps-default, downloaded but not installed.

The pictures have licences of their own (the `copyright` file is unpacked with them), so they stay out of this
repository. Many stamps are drawings: those lie in folders named `cartoon`, or show few colours.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
from PIL import Image

from local.sample_shop.ware import Ware
from magpie.errors import Unavailable

PACKAGE = "tuxpaint-stamps-default"
STAMPS = PurePosixPath("usr/share/tuxpaint/stamps")
LICENCES = PurePosixPath(f"usr/share/doc/{PACKAGE}/copyright")

# Folder of stamps -> the shop's category. The first that fits counts.
CATEGORIES = {
    "food/fruit": "Fruit",
    "food/nuts": "Nuts",
    "food/vegetables": "Vegetables",
    "household/dishes": "Dishes",
    "household/arttools": "Art supplies",
    "household/tools": "Tools",
    "household": "Household",
    "hobbies/music": "Music",
    "hobbies": "Optics",
    "plants/flowers": "Flowers",
    "plants/mushrooms": "Mushrooms",
    "sports": "Sports",
    "medical": "Health",
    "vehicles": "Model vehicles",
}

LONGEST_SIDE = 70  # px; smaller stamps turn to mush in a scene
# A photograph shows many shades: so many colours (5 bits a channel), and so many a square root of its pixels.
PHOTO_COLOURS = 170
PHOTO_DENSITY = 1.5


def download(folder: Path) -> Path:
    """The stamps' folder, fetched into `folder` unless it is there already (160 MB, then 30 MB on disk).

    Raises Unavailable where there is no apt, or apt does not have the package.
    """
    unpacked = folder / STAMPS
    if unpacked.is_dir():
        return unpacked
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("no apt here")
    folder.mkdir(parents=True, exist_ok=True)
    fetched = subprocess.run(
        ["apt-get", "download", "-q", PACKAGE], cwd=folder, capture_output=True, text=True, check=False
    )
    archives = sorted(folder.glob(f"{PACKAGE}_*.deb"))
    if fetched.returncode or not archives:
        problem = (fetched.stderr.strip().splitlines() or ["no output"])[-1]
        raise Unavailable(f"apt-get download {PACKAGE}: {problem} (does `apt-get update` help?)")
    partial = folder / "unpacking"
    shutil.rmtree(partial, ignore_errors=True)
    _unpack(archives[-1], partial)
    (partial / "usr").rename(folder / "usr")  # all or nothing: an interrupted run starts over
    partial.rmdir()
    archives[-1].unlink()
    return unpacked


def _unpack(archive: Path, target: Path) -> None:
    """Take the photographs of our categories, their texts and the licences out of a .deb."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=cast(IO[bytes], process.stdout), mode="r|") as files,
    ):
        files.extractall(target, members=(file for file in files if _wanted(file)), filter="data")
    if process.returncode:
        raise Unavailable(f"dpkg-deb could not read {archive.name}: exit status {process.returncode}")


def _wanted(file: tarfile.TarInfo) -> bool:
    path = PurePosixPath(file.name)
    if path == LICENCES:
        return True
    return (
        path.suffix in (".png", ".txt")
        and path.is_relative_to(STAMPS)
        and "cartoon" not in path.parts
        and category_of(path.relative_to(STAMPS)) is not None
    )


def category_of(stamp: PurePosixPath) -> str | None:
    """The category of a stamp by its folder, None for what no shop sells."""
    return next((name for folder, name in CATEGORIES.items() if stamp.is_relative_to(folder)), None)


def wares(stamps: Path) -> list[Ware]:
    """Every photograph among the stamps, in the order of their paths."""
    found = []
    for path in sorted(stamps.rglob("*.png")):
        category = category_of(PurePosixPath(path.relative_to(stamps)))
        if category is None or "cartoon" in path.parts or path.stem.endswith("_mirror"):
            continue
        cutout = Image.open(path).convert("RGBA")
        box = cutout.getchannel("A").getbbox()
        if box and max(cutout.crop(box).size) >= LONGEST_SIDE and is_photograph(cutout):
            slug = re.sub(r"[^a-z0-9]+", "-", f"{category}-{path.stem}".lower())
            found.append(Ware(slug, title_of(path), category, cutout.crop(box), range_of(path)))
    sizes = Counter(ware.group for ware in found)
    return [ware if sizes[ware.group] > 1 else replace(ware, group="") for ware in found]


def range_of(stamp: Path) -> str:
    """What the shop sells it as a variant of: `wrench_adjustable` and `wrench_plumbers` are both wrenches."""
    return re.split(r"[_\d-]", stamp.stem.lower())[0]


def is_photograph(cutout: Image.Image) -> bool:
    """Whether an RGBA stamp has the many shades of a photograph."""
    pixels = np.asarray(cutout)
    solid = pixels[pixels[..., 3] > 200][:, :3] >> 3  # (N, 3), 5 bits a channel
    colours = len(np.unique(solid.astype(np.int32) @ np.array([1024, 32, 1])))
    return colours >= PHOTO_COLOURS and colours >= PHOTO_DENSITY * float(np.sqrt(len(solid)))


def title_of(stamp: Path) -> str:
    """From the English text beside it if that reads like a name, else from the file's name."""
    text = stamp.with_suffix(".txt")
    line = text.read_text(encoding="utf-8").splitlines()[0].strip() if text.is_file() else ""
    line = line.split(". ")[0]
    if not line or len(line) > 45 or line[-1] in "!?":
        line = re.sub(r"[_\d-]+", " ", stamp.stem).strip()
    line = re.sub(r"^(An?|Some|Two) (pair of )?", "", line).rstrip(".")
    return line[:1].upper() + line[1:]
