"""A data report as one page that asks for nothing from elsewhere: tables, copies and bad pictures."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2
from PIL import Image

from magpie.errors import UndecodableImage
from magpie.vision.decode import decode
from training.datasets.report import ClassCount, Column, DataReport

SHOWN = 60  # groups of copies, and bad pictures, with their pictures; the others are counted
SIDE = 200  # px, longer side
BARS = 12  # classes drawn of a column: the smallest, and the largest


def render(found: DataReport) -> str:
    """HTML. Pictures are read again; one that cannot be read stands there by its name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    every = [bad.picture for bad in (*found.bad_pictures, *found.unreadable)]
    every += [path for group in found.near_duplicates for path in group.pictures]
    root = Path(os.path.commonpath([path.parent for path in every])) if every else Path()
    groups = sorted(found.near_duplicates, key=lambda group: (not group.across, not group.contradicting))
    copies = [
        {
            "across": group.across,
            "same_bytes": group.same_bytes,
            "contradicting": group.contradicting,
            "pictures": [
                {"name": str(path.relative_to(root)), "place": place, "data": _picture(path)}
                for path, place in zip(group.pictures, group.places, strict=True)
            ],
        }
        for group in groups[:SHOWN]
    ]
    bad = [
        {
            "name": str(entry.picture.relative_to(root)),
            "faults": entry.faults,
            "data": _picture(entry.picture),
        }
        for entry in found.bad_pictures[:SHOWN]
    ]
    unreadable = [
        {"name": str(entry.picture.relative_to(root)), "reason": entry.faults[0]}
        for entry in found.unreadable
    ]
    return environment.get_template("report_page.html.j2").render(
        report=found,
        root=root,
        bars={(d.name, c.name): _bars(c) for d in found.datasets for c in d.columns},
        copies=copies,
        bad=bad,
        unreadable=unreadable,
    )


def _bars(column: Column) -> list[dict[str, object]]:
    """The smallest and the largest classes: name, pictures, width in percent of the largest."""
    classes: Sequence[ClassCount | None] = column.classes
    if len(classes) > 2 * BARS:
        classes = (*classes[:BARS], None, *classes[-BARS:])
    return [
        {"name": "...", "pictures": "", "width": 0.0}
        if entry is None
        else {"name": entry.name, "pictures": entry.pictures, "width": 100 * entry.pictures / column.most}
        for entry in classes
    ]


def _picture(path: Path) -> str:
    """A small JPEG as a data URI; empty if the file cannot be read."""
    try:
        image = Image.fromarray(decode(path.read_bytes(), SIDE).pixels)
    except (OSError, UndecodableImage):
        return ""
    image.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
