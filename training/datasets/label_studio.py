"""Label Studio's tasks and its export, for photos with boxes.

A task shows a photo with the boxes that it has as its annotation, and suspects as predictions: whoever looks
through them accepts, moves or removes. Coordinates are percent of the photo, from its upper left corner; see
labelstud.io/guide/export and labelstud.io/tags/rectanglelabels.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import quoteattr

from magpie.tables.problems import BadFile, Problem
from training.datasets.boxed_photo import BoxedPhoto, Corners

FROM, TO = "label", "image"  # names in the labelling configuration
IGNORED = "(ignored)"  # the label of regions that are not judged
KIND = "rectanglelabels"


@dataclass(frozen=True)
class Prediction:
    """A box that a model suggests."""

    box: Corners  # fractions
    label: str
    score: float


def configuration(labels: Sequence[str]) -> str:
    """What to paste into the project's settings: Labeling Interface, Code."""
    rows = "\n".join(f"    <Label value={quoteattr(label)}/>" for label in (*labels, IGNORED))
    return (
        f'<View>\n  <Image name="{TO}" value="$image" zoom="true"/>\n'
        f'  <RectangleLabels name="{FROM}" toName="{TO}">\n{rows}\n  </RectangleLabels>\n</View>\n'
    )


def task(photo: BoxedPhoto, address: str, predictions: Sequence[Prediction], model: str) -> dict[str, Any]:
    """One task. `address` is where Label Studio finds the picture; `model` names who predicts."""
    size = photo.load().size  # as a browser shows it, where the boxes are of the upright picture
    known = [(box, label) for box, label in zip(photo.boxes.tolist(), photo.categories, strict=True)]
    known += [(list(box), IGNORED) for box in photo.ignored]
    made: dict[str, Any] = {
        "data": {"image": address, "file": photo.name, "split": photo.split},
        "annotations": [{"result": [_region(tuple(box), label, size) for box, label in known]}],
    }
    if predictions:
        made["predictions"] = [
            {
                "model_version": model,
                "score": max(one.score for one in predictions),
                # Boxes that are known come along: who accepts the prediction has all of them.
                "result": [
                    *(_region(tuple(box), label, size) for box, label in known),
                    *(_region(one.box, one.label, size, one.score) for one in predictions),
                ],
            }
        ]
    return made


def _region(box: Corners, label: str, size: tuple[int, int], score: float | None = None) -> dict[str, Any]:
    x0, y0, x1, y1 = (100 * value for value in box)
    made: dict[str, Any] = {
        # The same for the same box, so that a task file does not change by itself.
        "id": uuid.uuid5(uuid.NAMESPACE_OID, f"{box} {label}").hex[:10],
        "type": KIND,
        "from_name": FROM,
        "to_name": TO,
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": {
            "x": x0,
            "y": y0,
            "width": x1 - x0,
            "height": y1 - y0,
            "rotation": 0,
            KIND: [label],
        },
    }
    return made if score is None else made | {"score": score}


@dataclass
class Imported:
    """An export as COCO's JSON, and what was not taken as it was."""

    coco: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def read_export(path: Path) -> Imported:
    """Label Studio's export as JSON or JSON-MIN -> COCO's form, with split and file names as in the tasks.

    Of several annotations of a photo the newest counts; cancelled ones and photos without any are left out. A
    rotated box becomes the upright box around it; one without a label, or with several, is ignored: it may be
    found or not. Raises BadFile if the file is no such export.
    """
    imported = Imported({"images": [], "categories": [], "annotations": []})
    categories: dict[str, int] = {}
    for row, entry in enumerate(_newest(_entries(path), imported.notes)):
        file, split = _names(entry)
        where = f"task {entry.get('id', row + 1)} ({file})"
        regions = _regions(entry, where, imported.notes)
        if regions is None:
            continue
        sizes = {(region["original_width"], region["original_height"]) for region in regions}
        image: dict[str, Any] = {"id": len(imported.coco["images"]) + 1, "file_name": file}
        if sizes:
            image["width"], image["height"] = sorted(sizes)[0]
        if split:
            image["split"] = split
        imported.coco["images"].append(image)
        for region in regions:
            number = len(imported.coco["annotations"]) + 1
            made = _annotation(region, image, categories, where, imported.notes)
            imported.coco["annotations"].append({"id": number, **made})
    imported.coco["categories"] = [{"id": number, "name": name} for name, number in categories.items()]
    return imported


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", 0)
        raise BadFile(str(path), [Problem(line, f"is no JSON: {error}")]) from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadFile(str(path), [Problem(0, "is no export of Label Studio: it needs a list of tasks")])
    nameless = [row for row, entry in enumerate(entries) if not _names(entry)[0]]
    if nameless:
        raise BadFile(str(path), [Problem(0, f"task {row + 1} names no image") for row in nameless])
    return entries


def _names(entry: Mapping[str, Any]) -> tuple[str, str]:
    """The picture's file and its split; JSON-MIN has them in the task itself."""
    data = entry.get("data", entry)
    address = str(data.get("image", ""))
    file = data.get("file") or unquote(address.rpartition("/")[2].rpartition("=")[2])
    return str(file), str(data.get("split") or "")


def _regions(entry: Mapping[str, Any], where: str, notes: list[str]) -> list[dict[str, Any]] | None:
    """None: nobody annotated the task."""
    if "annotations" not in entry and "data" not in entry:  # JSON-MIN
        return _flat(entry.get(FROM) or [], where, notes)
    kept = [one for one in entry.get("annotations", []) if not one.get("was_cancelled")]
    skipped = len(entry.get("annotations", [])) - len(kept)
    if skipped:
        notes.append(f"{where}: {skipped} cancelled")
    if not kept:
        notes.append(f"{where}: has no annotation, left out")
        return None
    if len(kept) > 1:
        notes.append(f"{where}: {len(kept)} annotations, the newest counts")
    newest = max(kept, key=_age)
    others = [one for one in newest.get("result", []) if one.get("type") != KIND]
    if others:
        notes.append(f"{where}: {len(others)} regions that are no rectangles, left out")
    rectangles = [one for one in newest.get("result", []) if one.get("type") == KIND]
    return _flat([{**one, **one.get("value", {})} for one in rectangles], where, notes)


def _newest(entries: Sequence[dict[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """JSON-MIN has an entry for each annotation of a task: of those the newest."""
    of_task: dict[Any, dict[str, Any]] = {}
    for row, entry in enumerate(entries):
        key = entry.get("id", f"row {row}")
        before = of_task.get(key)
        if before is not None:
            notes.append(f"task {key} ({_names(entry)[0]}): several annotations, the newest counts")
        if before is None or _age(entry) >= _age(before):
            of_task[key] = entry
    return list(of_task.values())


def _age(annotation: Mapping[str, Any]) -> tuple[str, int]:
    """What grows with time: when it was changed (ISO 8601), else its number."""
    number = annotation.get("annotation_id", annotation.get("id", 0))
    return str(annotation.get("updated_at") or ""), number if isinstance(number, int) else 0


def _flat(regions: Sequence[Mapping[str, Any]], where: str, notes: list[str]) -> list[dict[str, Any]]:
    """Rectangles as numbers and labels; what lacks a number is left out, with a note."""
    names = ("x", "y", "width", "height", "original_width", "original_height")
    flat = []
    for region in regions:
        try:
            numbers = {name: float(region[name]) for name in names}
            numbers["rotation"] = float(region.get("rotation") or 0)
        except (KeyError, TypeError, ValueError) as error:
            notes.append(f"{where}: a region lacks {error}, left out")
            continue
        flat.append({**numbers, "labels": [str(label) for label in region.get(KIND) or []]})
    return flat


def _annotation(
    region: Mapping[str, Any],
    image: Mapping[str, Any],
    categories: dict[str, int],
    where: str,
    notes: list[str],
) -> dict[str, Any]:
    width, height = region["original_width"], region["original_height"]
    x, y = region["x"] / 100 * width, region["y"] / 100 * height
    box = (x, y, region["width"] / 100 * width, region["height"] / 100 * height)
    if region["rotation"]:
        box = _upright(box, region["rotation"])
        notes.append(f"{where}: a box was rotated by {region['rotation']:g} degrees, made upright")
    labels = region["labels"]
    if len(labels) != 1:
        notes.append(f"{where}: a box has {len(labels)} labels, it is ignored")
    crowd = len(labels) != 1 or labels[0] == IGNORED
    # A crowd is of any class; COCO wants one.
    name = next(iter(categories), "product") if crowd else labels[0]
    return {
        "image_id": image["id"],
        "category_id": categories.setdefault(name, len(categories) + 1),
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": int(crowd),
    }


def _upright(box: tuple[float, float, float, float], degrees: float) -> tuple[float, float, float, float]:
    """The upright box around one that is turned clockwise about its upper left corner; x, y, w, h in px."""
    x, y, width, height = box
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(a * cosine - b * sine, a * sine + b * cosine) for a in (0.0, width) for b in (0.0, height)]
    left, top = min(a for a, _ in corners), min(b for _, b in corners)
    return (x + left, y + top, max(a for a, _ in corners) - left, max(b for _, b in corners) - top)
