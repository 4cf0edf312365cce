"""Photos with boxes in COCO's JSON form: a file, or `FOLDER/annotations.json`; files lie beside it.

An image may name its `split`. `iscrowd` regions are ignored: what lies in them is neither right nor wrong.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from magpie.errors import InvalidArgument
from magpie.tables.problems import BadFile, Problem
from training.datasets.box_findings import BoxFindings
from training.datasets.boxed_photo import Annotation, BoxedPhoto, photo_of

FILE = "annotations.json"


def read(path: Path, findings: BoxFindings) -> list[BoxedPhoto]:
    """All photos; what is not as it should be goes into `findings`.

    Raises InvalidArgument if the file is missing, BadFile if it is no COCO file.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise InvalidArgument("data", f"{file} is missing; --data names the folder that holds the data sets")
    content = _content(file)
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    images = _images(content, findings)
    of_image: dict[Any, list[Annotation]] = defaultdict(list)
    for number, entry in enumerate(content["annotations"]):
        where = f"annotation {entry.get('id', number)}"
        image = images.get(entry.get("image_id"))
        if image is None:
            findings.add("unknown image", where, f"there is no image {entry.get('image_id')!r}")
            continue
        annotation = _annotation(entry, f"{where} of {image['file_name']}", names, findings)
        if annotation is not None:
            of_image[image["id"]].append(annotation)
    photos = (
        photo_of(
            file.parent / image["file_name"],
            (float(image.get("width", 0)), float(image.get("height", 0))),
            of_image[image["id"]],
            str(image.get("split", "")),
            findings,
        )
        for image in images.values()
    )
    return [photo for photo in photos if photo is not None]


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise BadFile(str(file), [Problem(error.lineno, f"is no JSON: {error.msg}")]) from error
    except UnicodeDecodeError as error:
        raise BadFile(str(file), [Problem(0, f"is no JSON: {error}")]) from error
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise BadFile(
            str(file), [Problem(0, "is no COCO file: it needs lists `images`, `annotations`, `categories`")]
        )
    problems = [
        Problem(0, f"{key}[{row}] has no `{name}`")
        for key, names in (("images", ("id", "file_name")), ("categories", ("id", "name")))
        for row, entry in enumerate(content[key])
        for name in names
        if name not in entry
    ]
    if problems:
        raise BadFile(str(file), problems)
    return content


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
