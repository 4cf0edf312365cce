"""Photos with boxes in COCO's JSON form: a file, or `FOLDER/annotations.json`; files lie beside it.

An image may name its `split`. `iscrowd` regions are ignored: what lies in them is neither right nor wrong.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magpie.errors import InvalidArgument
from magpie.tables.problems import BadFile, Problem
from training.datasets.box_findings import BoxFindings
from training.datasets.boxed_photo import Annotation, BoxedPhoto, photo_of

FILE = "annotations.json"
NEEDED = {"images": ("id", "file_name"), "categories": ("id", "name"), "annotations": ()}


def read(path: Path, findings: BoxFindings) -> list[BoxedPhoto]:
    """All photos; what is not as it should be goes into `findings`.

    Raises InvalidArgument if the file is missing, BadFile if it is no COCO file.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise InvalidArgument("data", f"{file} is missing; --data names the folder that holds the data sets")
    described = content(file)
    names = {category["id"]: str(category["name"]) for category in described["categories"]}
    images = _images(described, findings)
    of_image: dict[Any, list[Annotation]] = defaultdict(list)
    for number, entry in enumerate(described["annotations"]):
        where = f"annotation {entry.get('id', number)}"
        image = images.get(entry.get("image_id"))
        if image is None:
            findings.add("unknown image", where, f"there is no image {entry.get('image_id')!r}")
            continue
        annotation = _annotation(entry, f"{where} of {image['file_name']}", names, findings)
        if annotation is not None:
            of_image[image["id"]].append(annotation)
    for name, count in Counter(str(image["file_name"]) for image in images.values()).items():
        if count > 1:
            findings.add("duplicate file", name, f"{count} images have it")
    photos = (
        photo_of(
            file.parent / image["file_name"],
            str(image["file_name"]),
            (_pixels(image.get("width")), _pixels(image.get("height"))),
            of_image[image["id"]],
            str(image.get("split", "")),
            findings,
        )
        for image in images.values()
    )
    return [photo for photo in photos if photo is not None]


def content(file: Path) -> dict[str, Any]:
    """A COCO file's lists. Raises BadFile if it is none, naming all that cannot be read."""
    try:
        found = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise BadFile(str(file), [Problem(error.lineno, f"is no JSON: {error.msg}")]) from error
    except UnicodeDecodeError as error:
        raise BadFile(str(file), [Problem(0, f"is no JSON: {error}")]) from error
    keys = ("images", "annotations", "categories")
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in keys):
        raise BadFile(
            str(file), [Problem(0, "is no COCO file: it needs lists `images`, `annotations`, `categories`")]
        )
    problems = [problem for key in keys for problem in _problems(key, found[key])]
    ids = [
        category["id"] for category in found["categories"] if isinstance(category, dict) and "id" in category
    ]
    problems += [
        Problem(0, f"category id {number!r} is there {count} times")
        for number, count in Counter(map(str, ids)).items()
        if count > 1
    ]
    if problems:
        raise BadFile(str(file), problems)
    return found


def _problems(key: str, entries: list[Any]) -> Iterator[Problem]:
    """Entries that cannot be read at all."""
    for row, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield Problem(0, f"{key}[{row}] is no object")
            continue
        for name in NEEDED[key]:
            if name not in entry:
                yield Problem(0, f"{key}[{row}] has no `{name}`")
        for name in ("id", "image_id", "category_id"):
            if not isinstance(entry.get(name, 0), int | str):
                yield Problem(0, f"{key}[{row}]: `{name}` is {entry[name]!r}, not a number or a word")


def _images(content: dict[str, Any], findings: BoxFindings) -> dict[Any, dict[str, Any]]:
    images: dict[Any, dict[str, Any]] = {}
    for image in content["images"]:
        if image["id"] in images:
            first = images[image["id"]]["file_name"]
            findings.add(
                "duplicate image id", image["file_name"], f"id {image['id']} is also that of {first}"
            )
        else:
            images[image["id"]] = image
    return images


def _annotation(
    entry: dict[str, Any], where: str, names: dict[Any, str], findings: BoxFindings
) -> Annotation | None:
    try:
        x, y, width, height = (float(value) for value in entry["bbox"])
    except (KeyError, TypeError, ValueError):
        findings.add("no box", where, f"`bbox` is {entry.get('bbox')!r}, not x, y, width, height")
        return None
    category = names.get(entry.get("category_id"))
    if category is None:
        findings.add("unknown class", where, f"there is no category {entry.get('category_id')!r}")
    judged = None if entry.get("iscrowd") else category
    return Annotation((x, y, x + width, y + height), judged, where)


def _pixels(value: object) -> float:
    """0: the file does not say."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
