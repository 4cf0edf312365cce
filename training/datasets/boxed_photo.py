"""A photo with boxes, whatever the format that it was annotated in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from magpie.geometry import Boxes
from training.datasets.box_findings import BoxFindings

ROUNDING = 0.5  # px that a box may reach outside by rounding; more is listed
Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in px of the size that the annotation names


@dataclass(frozen=True)
class BoxedPhoto:
    """A photo and what is in it, as fractions."""

    path: Path
    boxes: Boxes  # (N, 4)
    categories: tuple[str, ...]  # N
    split: str = ""
    ignored: tuple[Corners, ...] = ()  # fractions: crowds, difficult and unnamed things

    def load(self) -> Image.Image:
        """RGB. The boxes belong to the pixels as stored, so no EXIF rotation is applied."""
        with Image.open(self.path) as image:
            return image.convert("RGB")


@dataclass(frozen=True)
class Annotation:
    """A box as its file has it. `category` None: nobody knows what it is, or it is not to be judged."""

    corners: Corners
    category: str | None
    where: str  # for the findings


def photo_of(
    path: Path,
    size: tuple[float, float],
    annotations: Sequence[Annotation],
    split: str,
    findings: BoxFindings,
) -> BoxedPhoto | None:
    """The photo, its boxes clipped to it; None if its file is missing or cannot be read. `size` in px."""
    actual = _size_of(path, findings)
    if actual is None:
        return None
    width, height = size
    if min(size) <= 0:
        findings.add("other size", path.name, f"the annotation says {width:g} x {height:g} px")
        width, height = actual
    elif (width, height) != actual:
        findings.add(
            "other size",
            path.name,
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
        findings.add("picture without boxes", path.name, "nobody annotated anything")
    return BoxedPhoto(
        path, np.array(boxes, np.float32).reshape(-1, 4), tuple(categories), split, tuple(ignored)
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


def _size_of(path: Path, findings: BoxFindings) -> tuple[int, int] | None:
    if not path.is_file():
        findings.add("missing file", path.name, f"there is no {path}")
        return None
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        findings.add("unreadable file", path.name, str(error))
        return None
