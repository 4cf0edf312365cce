"""`magpie boxes`: annotations of boxes, looked through and mended before a detector is trained on them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import click
import numpy as np
from rich.table import Table

from magpie.errors import InvalidArgument
from magpie.geometry import Boxes
from training.commands.options import examples, json_option, notes, print_json, table_console, tell
from training.datasets import coco_boxes
from training.datasets.box_findings import OUTCOMES, BoxFindings
from training.datasets.boxed_photo import BoxedPhoto
from training.datasets.coco_merge import merged
from training.datasets.label_studio import IGNORED, Prediction, configuration, read_export, task
from training.detection import completeness_page
from training.detection.box_sizes import size_counts
from training.detection.completeness import Suspect, suspects
from training.detection.contender import Contender, contender
from training.detection.recipe import BoxData
from training.detection.sources import guessed_format, read_boxes
from training.progress import progress

LISTED = 20  # findings on the terminal; all are in the JSON
CONFIGURATION = "label-config.xml"

path_argument = click.argument("path", type=click.Path(path_type=Path, exists=True))
format_option = click.option(
    "--format",
    "kind",
    type=click.Choice(["coco", "voc"]),
    help="Of the annotations.  [default: voc for a folder with XML files alone, else coco]",
)
split_option = click.option("--split", "splits", multiple=True, help="Only these photos; may be repeated.")
model_option = click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True),
    metavar="DETECTOR",
    help="A bundle, a detector.card.json or a run: what it is sure of and nobody annotated.",
)
score_option = click.option(
    "--min-score", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="How sure it must be."
)
iou_option = click.option(
    "--iou",
    "iou_threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Overlap from which an annotated box is the same thing.",
)


@click.group(
    "boxes",
    epilog=examples(
        "magpie boxes report photos/annotations.json",
        "magpie boxes report photos/ --model bundles/default --html suspects.html",
        "magpie boxes tasks photos/ --model bundles/default --out tasks.json",
        "magpie boxes import export.json --onto photos/annotations.json --out photos/annotations.json",
    ),
)
def command() -> None:
    """Look through annotations of boxes, and mend them in Label Studio."""


@command.command(
    "report",
    epilog=examples(
        "magpie boxes report photos/                              # photos/annotations.json, or XML files",
        "magpie boxes report photos/ --model .training/runs/cards --min-score 0.7 --html suspects.html",
    ),
)
@path_argument
@format_option
@split_option
@model_option
@score_option
@iou_option
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page of what may lack a box."
)
@json_option
def report(
    path: Path,
    kind: Literal["coco", "voc"] | None,
    splits: tuple[str, ...],
    model: Path | None,
    min_score: float,
    iou_threshold: float,
    html: Path | None,
    as_json: bool,
) -> None:
    """What is in annotations, what is wrong with them, and what may lack a box.

    PATH is a COCO file, the folder of an annotations.json, or a folder of PASCAL VOC's XML files. Nothing is
    dropped without a word: what training would repair or leave out is counted and listed.

    With --model also annotation completeness: what a detector is sure of and no box matches. A thing without
    its box teaches that it is background.
    """
    if html and not model:
        raise click.UsageError("--html shows what a detector is sure of: name one by --model")
    photos, findings = _read(path, kind, splits)
    classes = Counter(category for photo in photos for category in photo.categories)
    found = [] if model is None else _suspects(photos, contender(model), min_score, iou_threshold)
    if html and model:
        page = completeness_page.render(path.name, photos, found, str(model))
        completeness_page.write(html, page)
    if as_json:
        print_json(
            {
                "photos": len(photos),
                "classes": dict(classes.most_common()),
                "sizes": size_counts(_all_boxes(photos)),
                "without boxes": sum(not len(photo.boxes) for photo in photos),
                "findings": findings.counts,
                "listed": [
                    {"kind": one.kind, "where": one.where, "what": one.what} for one in findings.found
                ],
                "suspects": [
                    {
                        "file": photos[one.photo].name,
                        "box": [round(value, 5) for value in one.box],
                        "label": one.label,
                        "score": round(one.score, 4),
                    }
                    for one in found
                ],
            }
        )
        return
    _print_classes(photos, classes)
    _print_findings(findings)
    if model is not None:
        affected = len({one.photo for one in found})
        tell(f"{len(found)} things on {affected} photos of which {model} is sure have no box")
        if html:
            tell(f"wrote {html}")
        elif found:
            tell("see them with --html PAGE; mend them with `magpie boxes tasks`")


@command.command(
    "tasks",
    epilog=examples(
        "magpie boxes tasks photos/ --model bundles/default --out tasks.json",
        "magpie boxes tasks photos/ --out tasks.json --image-root '/data/local-files/?d=photos'",
    ),
)
@path_argument
@format_option
@split_option
@model_option
@score_option
@iou_option
@click.option(
    "--image-root",
    default="/data/local-files/?d=",
    show_default=True,
    metavar="URL",
    help="What Label Studio finds the pictures under: a bucket's URL, or its local files.",
)
@click.option("--all", "everything", is_flag=True, help="Also photos of which nothing is suspected.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="JSON file.")
@json_option
def tasks(
    path: Path,
    kind: Literal["coco", "voc"] | None,
    splits: tuple[str, ...],
    model: Path | None,
    min_score: float,
    iou_threshold: float,
    image_root: str,
    everything: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Write tasks that Label Studio imports: known boxes as annotations, suspects as predictions.

    Beside them lies label-config.xml, for the project's labelling interface. With --model only photos with a
    suspect, the surest first; without, all. `magpie boxes import` takes what Label Studio exports as JSON.
    """
    photos, _ = _read(path, kind, splits)
    found = [] if model is None else _suspects(photos, contender(model), min_score, iou_threshold)
    rows = list(dict.fromkeys(one.photo for one in found))
    if everything or model is None:
        rows += [row for row in range(len(photos)) if row not in set(rows)]
    made = [
        task(
            photos[row],
            _address(image_root, photos[row].name),
            [Prediction(one.box, one.label, one.score) for one in found if one.photo == row],
            str(model),
        )
        for row in rows
    ]
    labels = sorted(
        {category for photo in photos for category in photo.categories} | {one.label for one in found}
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(made, indent=2) + "\n")
    (out.parent / CONFIGURATION).write_text(configuration(labels))
    if as_json:
        print_json({"tasks": len(made), "suspects": len(found), "file": str(out)})
        return
    tell(f"wrote {len(made)} tasks with {len(found)} suspects to {out}, and {out.parent / CONFIGURATION}")


@command.command(
    "import",
    epilog=examples(
        "magpie boxes import export.json --onto photos/annotations.json --out photos/annotations.json",
        "magpie boxes import export.json --out photos/annotations.json",
    ),
)
@click.argument("export", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="COCO file.")
@click.option(
    "--onto",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="COCO",
    help="The annotations that there were: photos that the export lacks stay as they are in it.",
)
@click.option("--force", is_flag=True, help="Replace the file that is there.")
@json_option
def import_(export: Path, out: Path, onto: Path | None, force: bool, as_json: bool) -> None:
    """Turn Label Studio's EXPORT (JSON or JSON-MIN) into the COCO file that training reads.

    An export of some photos, such as those that were suspected, goes --onto the file with all of them.
    """
    if out.exists() and not force and onto != out:
        raise InvalidArgument(
            "--out",
            f"{out} is there already: pass `--onto {out}` to keep its other photos, --force to replace it",
        )
    imported = read_export(export)
    if onto is not None:
        imported.coco = merged(coco_boxes.content(onto), imported.coco)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(imported.coco, indent=2) + "\n")
    counts = {key: len(imported.coco[key]) for key in ("images", "annotations", "categories")}
    if as_json:
        print_json({**counts, "notes": imported.notes, "file": str(out)})
        return
    for line in imported.notes:
        tell(line)
    tell(f"wrote {counts['images']} photos with {counts['annotations']} boxes to {out}")


def _read(
    path: Path, kind: Literal["coco", "voc"] | None, splits: tuple[str, ...]
) -> tuple[list[BoxedPhoto], BoxFindings]:
    """Raises InvalidArgument if no photo is of those splits."""
    findings = BoxFindings()
    photos = read_boxes(
        BoxData(str(path.resolve()), kind or guessed_format(path), splits), Path("/"), findings
    )
    if not photos:
        raise InvalidArgument("PATH", f"{path} has no photo" + (f" of {', '.join(splits)}" if splits else ""))
    return photos, findings


def _suspects(
    photos: list[BoxedPhoto], detector: Contender, min_score: float, iou_threshold: float
) -> list[Suspect]:
    with progress(notes) as bar:
        row = bar.add_task("detecting", total=len(photos))
        return suspects(
            photos,
            detector.detect,
            detector.taxonomy,
            min_score=min_score,
            iou_threshold=iou_threshold,
            advance=lambda: bar.advance(row),
        )


def _address(root: str, name: str) -> str:
    """Where Label Studio finds a picture: its name under the root, as a URL writes it."""
    return f"{root}{'' if root.endswith(('/', '=')) else '/'}{quote(name)}"


def _all_boxes(photos: list[BoxedPhoto]) -> Boxes:
    return np.concatenate([np.empty((0, 4), np.float32), *(photo.boxes for photo in photos)])


def _print_classes(photos: list[BoxedPhoto], classes: Counter[str]) -> None:
    table = Table("class", "boxes", "small", "medium", "large", "photos", box=None)
    for name, count in classes.most_common():
        of_class = np.concatenate([photo.boxes[[c == name for c in photo.categories]] for photo in photos])
        with_it = sum(name in photo.categories for photo in photos)
        table.add_row(name, str(count), *map(str, size_counts(of_class).values()), str(with_it))
    ignored = sum(len(photo.ignored) for photo in photos)
    if ignored:
        table.add_row(IGNORED, str(ignored), "", "", "", str(sum(bool(photo.ignored) for photo in photos)))
    table_console.print(table)
    empty = sum(not len(photo.boxes) for photo in photos)
    table_console.print(f"{len(photos)} photos, {empty} without boxes", highlight=False)


def _print_findings(findings: BoxFindings) -> None:
    for kind, count in findings.counts.items():
        table_console.print(f"\n{count} x {kind}: {OUTCOMES[kind]}", highlight=False)
        listed: list[Any] = [one for one in findings.found if one.kind == kind]
        for one in listed[:LISTED]:
            table_console.print(f"  {one.where}: {one.what}", highlight=False, soft_wrap=True)
        if len(listed) > LISTED:
            table_console.print(f"  and {len(listed) - LISTED} more, see --json", highlight=False)
