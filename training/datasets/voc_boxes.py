"""Photos with boxes in PASCAL VOC's form (Everingham et al. 2010): an XML file a picture.

A folder of XML files, or one with `Annotations/`; pictures lie beside the XML files, in `JPEGImages/` or in
`images/`. `ImageSets/Main/SPLIT.txt` names the pictures of a split; of several that name a picture the
smallest is its split. Where `<database>` names VOC, pixels count from 1 and a box includes its last one, as
in the devkit; other tools count from 0. What is marked `difficult` is ignored.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from xml.etree import ElementTree

from magpie.errors import InvalidArgument
from magpie.tables.problems import BadFile, Problem
from training.datasets.box_findings import BoxFindings
from training.datasets.boxed_photo import Annotation, BoxedPhoto, Corners, photo_of

PICTURES = ("JPEGImages", "images", "Annotations", "")
SUFFIXES = (".jpg", ".jpeg", ".png")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def read(folder: Path, findings: BoxFindings) -> list[BoxedPhoto]:
    """All photos, by name; what is not as it should be goes into `findings`.

    Raises InvalidArgument if there is no XML file, BadFile naming each file that is no annotation.
    """
    annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    files = sorted(annotations.glob("*.xml")) if annotations.is_dir() else []
    if not files:
        raise InvalidArgument("data", f"{folder} has no XML files, nor Annotations/ with some")
    splits = _splits(folder)
    photos, problems = [], []
    seen: dict[str, str] = {}
    for file in files:
        try:
            root = ElementTree.parse(file).getroot()  # noqa: S314 - one's own annotations
            name = _text(root, "filename")
        except (ElementTree.ParseError, ValueError) as error:
            problems.append(Problem(0, f"{file.name}: {error}"))
            continue
        if name in seen:
            findings.add("duplicate image id", file.name, f"{name} is annotated in {seen[name]} too")
            continue
        seen[name] = file.name
        size = root.find("size")
        sides = (0.0, 0.0) if size is None else (_number(size, "width"), _number(size, "height"))
        first = 1.0 if "VOC" in (root.findtext("source/database") or "") else 0.0
        boxes = [
            _annotation(entry, first, f"{file.name} object {row + 1}", findings)
            for row, entry in enumerate(root.iter("object"))
        ]
        path = _picture(folder, name, file.stem)
        photo = photo_of(
            path,
            Path(os.path.relpath(path, folder)).as_posix(),
            sides,
            [box for box in boxes if box],
            splits.get(Path(name).stem) or splits.get(file.stem, ""),
            findings,
        )
        if photo is not None:
            photos.append(photo)
    if problems:
        raise BadFile(str(annotations), problems)
    return photos


def _annotation(
    entry: ElementTree.Element, first: float, where: str, findings: BoxFindings
) -> Annotation | None:
    box = entry.find("bndbox")
    values = [float("nan")] * 4 if box is None else [_number(box, side, float("nan")) for side in SIDES]
    if any(map(math.isnan, values)):  # a side is missing
        findings.add("no box", where, f"`bndbox` needs the numbers {', '.join(SIDES)}")
        return None
    corners: Corners = (values[0] - first, values[1] - first, values[2], values[3])
    name = (entry.findtext("name") or "").strip()
    if not name:
        findings.add("unknown class", where, "has no `name`")
    difficult = _number(entry, "difficult") > 0
    return Annotation(corners, name if name and not difficult else None, where)


def _picture(folder: Path, name: str, stem: str) -> Path:
    """Where the picture lies; if it lies nowhere, in the first folder that is there.

    A picture that bears the XML file's own name is taken where the one that it names is nowhere.
    """
    places = [folder / place / name for place in PICTURES if (folder / place).is_dir()]
    others = [place.with_name(stem + suffix) for place in places for suffix in (Path(name).suffix, *SUFFIXES)]
    return next((place for place in (*places, *others) if place.is_file()), places[0])


def _splits(folder: Path) -> dict[str, str]:
    """Stem of a picture -> its split. Lists of one class (a picture and 1 or -1) are passed over."""
    lists = {}
    for file in (folder / "ImageSets" / "Main").glob("*.txt"):
        rows = [line.split() for line in file.read_text().splitlines() if line.strip()]
        if all(len(row) == 1 for row in rows):
            lists[file.stem] = [row[0] for row in rows]
    # `trainval` is written before `train` and `val`, which are smaller.
    ordered = sorted(lists.items(), key=lambda item: (-len(item[1]), item[0]))
    return {picture: split for split, pictures in ordered for picture in pictures}


def _text(root: ElementTree.Element, name: str) -> str:
    text = (root.findtext(name) or "").strip()
    if root.tag != "annotation" or not text:
        raise ValueError(f"is no annotation: it needs <annotation> with <{name}>")
    return text


def _number(entry: ElementTree.Element, name: str, default: float = 0.0) -> float:
    try:
        return float(entry.findtext(name) or default)
    except ValueError:
        return default
