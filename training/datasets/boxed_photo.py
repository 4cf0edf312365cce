"""A photo with boxes, whatever the format that it was annotated in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from magpie.geometry import Boxes
from training.datasets.box_findings import BoxFindings

ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that turn by a quarter
ROUNDING = 0.5  # px that a box may reach outside by rounding; more is listed
Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in px of the size that the annotation names


@dataclass(frozen=True)
class BoxedPhoto:
    """A photo and what is in it, as fractions."""

    path: Path
    name: str  # the file as the annotation names it
    boxes: Boxes  # (N, 4)
    categories: tuple[str, ...]  # N
    split: str = ""
    ignored: tuple[Corners, ...] = ()  # fractions: crowds, difficult and unnamed things
    upright: bool = False  # the boxes are those of the picture turned as its EXIF data say

    def load(self) -> Image.Image:
        """RGB, as the boxes have it: the pixels as stored, or upright."""
        with Image.open(self.path) as image:
            return (ImageOps.exif_transpose(image) if self.upright else image).convert("RGB")


@dataclass(frozen=True)
class Annotation:
    """A box as its file has it. `category` None: nobody knows what it is, or it is not to be judged."""

    corners: Corners
    category: str | None
    where: str  # for the findings


def photo_of(
    path: Path,
    name: str,
    size: tuple[float, float],
    annotations: Sequence[Annotation],
    split: str,
    findings: BoxFindings,
) -> BoxedPhoto | None:
    """The photo, its boxes clipped to it; None if its file is missing or cannot be read. `size` in px.

    A photo that a phone stored turned was annotated upright if the size says so.
    """
    sizes = _sizes_of(path, name, findings)
    if sizes is None:
        return None
    actual, turned = sizes
    width, height = size
    upright = turned != actual and (width, height) == turned
    if min(size) <= 0:  # it names none
        width, height = actual
    elif (width, height) not in (actual, turned):
        findings.add(
            "other size",
            name,
            f"is {actual[0]} x {actual[1]} px, the annotation says {width:g} x {height:g}",
        )
    boxes: list[Corners] = []
    categories: list[str] = []
    ignored: list[Corners] = []
    for annotation in annotations:
        corners = _inside(annotation, width, height, findings)
        if corners is None:
            continue
        if annotation.category is None:
            ignored.append(corners)
        else:
            boxes.append(corners)
            categories.append(annotation.category)
    if not boxes and not ignored:
        findings.add("picture without boxes", name, "nobody annotated anything")
    return BoxedPhoto(
        path,
        name,
        np.array(boxes, np.float32).reshape(-1, 4),
        tuple(categories),
        split,
        tuple(ignored),
        upright,
    )


def _inside(annotation: Annotation, width: float, height: float, findings: BoxFindings) -> Corners | None:
    """As fractions; None where nothing is left."""
    x0, y0, x1, y1 = annotation.corners
    if not all(map(math.isfinite, annotation.corners)):
        findings.add("no box", annotation.where, f"{annotation.corners} are no numbers")
        return None
    text = f"box ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) in {width:g} x {height:g} px"
    clipped = (
        min(max(x0, 0), width),
        min(max(y0, 0), height),
        min(max(x1, 0), width),
        min(max(y1, 0), height),
    )
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        findings.add("no area", annotation.where, text)
        return None
    if max(abs(a - b) for a, b in zip(clipped, annotation.corners, strict=True)) > ROUNDING:
        findings.add("outside the picture", annotation.where, text)
    return (clipped[0] / width, clipped[1] / height, clipped[2] / width, clipped[3] / height)


def _sizes_of(path: Path, name: str, findings: BoxFindings) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """(width, height) as stored and upright, in px. All of the file is read: a cut one is found here."""
    if not path.is_file():
        findings.add("missing file", name, f"there is no {path}")
        return None
    try:
        with Image.open(path) as image:
            image.load()
            quarter = image.getexif().get(ORIENTATION) in QUARTER_TURNS
            return image.size, image.size[::-1] if quarter else image.size
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's for damaged files
        findings.add("unreadable file", name, str(error))
        return None
