"""`magpie evaluate-detector`"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from magpie.errors import InvalidArgument
from training.commands.box_options import (
    boxes_data_option,
    class_agnostic_option,
    ignore_option,
    not_products_option,
    number,
    teacher_option,
    test_option,
)
from training.commands.options import (
    examples,
    json_option,
    notes,
    print_json,
    table_console,
    tell,
)
from training.detection.box_sets import LabelledSet, drawn_set, entry_of, read_set
from training.detection.contender import ANY, Contender, contender, of_teacher
from training.detection.evaluate import SetResult, evaluate
from training.detection.failures import MEANING
from training.detection.report import PAGE, Heading, write_report
from training.progress import progress


@click.command(
    "evaluate-detector",
    epilog=examples(
        "magpie evaluate-detector bundles/default --data photos --test coco-open-det:val2017 --not-products",
        "magpie evaluate-detector .training/runs/cards --data photos --test cards:test --out report",
        "magpie evaluate-detector bundles/default --drawn 100 --teacher teacher.onnx --json",
    ),
)
@click.argument("detector", type=click.Path(path_type=Path, exists=True), metavar="BUNDLE|CARD|RUN")
@boxes_data_option
@test_option
@click.option("--drawn", type=click.IntRange(min=0), default=0, help="Also so many scenes of drawn products.")
@not_products_option
@ignore_option
@class_agnostic_option
@teacher_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of an HTML report.")
@json_option
def command(
    detector: Path,
    data: Path | None,
    tests: tuple[str, ...],
    drawn: int,
    not_products: bool,
    ignored: tuple[str, ...],
    class_agnostic: bool,
    teacher: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure a detector: of a bundle, of a detector's card, or of a run of `magpie train detection`.

    For every set: COCO's AP, AP50, AP75 and recall at 100 boxes, by class and by size; the best F1 and the
    score it is reached from; the errors by kind; and the time of a photo on one thread. A detector of the one
    class `product` is judged by places alone, others by class name too. With --out the errors are drawn, the
    worst first, on a page for each set.
    """
    if not tests and not drawn:
        raise click.UsageError("name photos with boxes: --test PATH[:SPLIT,...], or --drawn COUNT")
    own = contender(detector)
    if class_agnostic or teacher:
        own = own.class_agnostic()
    if drawn and own.names_classes:
        raise click.UsageError("drawn scenes have no classes: --drawn needs --class-agnostic")
    if tests and data is None:
        raise click.UsageError("--test needs --data FOLDER (or MAGPIE_DATA)")
    sets = [
        read_set(
            entry_of(text, not_products=not_products, ignored=ignored, recipe=own.recipe),
            data or Path(),
            own.taxonomy,
        )
        for text in tests
    ]
    sets += [drawn_set(drawn)] if drawn else []
    results = measure([own, *([of_teacher(teacher)] if teacher else [])], sets)
    content = as_plain(own, results)
    if out is not None:
        _write(own, results, content, out)
    if as_json:
        print_json(content)
    else:
        _print_tables(results)


def measure(detectors: Sequence[Contender], sets: Sequence[LabelledSet]) -> list[SetResult]:
    """Every detector on every set, with a bar on standard error."""
    results = []
    with progress(notes) as bar:
        for photos in sets:
            for one in detectors:
                task = bar.add_task(f"{photos.name}: {one.title}", total=len(photos.images))
                results.append(evaluate(one, photos, lambda task=task: bar.advance(task)))  # type: ignore[misc]
    return results


def as_plain(own: Contender, results: Sequence[SetResult]) -> dict[str, Any]:
    """JSON-ready: set -> detector -> figures."""
    sets: dict[str, Any] = {}
    for result in results:
        one = sets.setdefault(
            result.set.name,
            {"photos": len(result.set.images), "boxes": result.set.boxes, "detectors": {}},
        )
        one["detectors"][result.detector] = result.summary()
    return {
        "detector": own.title,
        "taxonomy": list(own.taxonomy),
        "class_agnostic": own.taxonomy == ANY,
        "sets": sets,
    }


def _write(own: Contender, results: Sequence[SetResult], content: dict[str, Any], out: Path) -> None:
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    heading = Heading(own.title, date, shlex.join(["magpie", *sys.argv[1:]]))
    try:
        write_report(results, heading, content, out)
    except OSError as error:
        raise InvalidArgument("--out", f"{error.filename or out}: {error.strerror}") from error
    tell(f"the report is {out / PAGE}")


def _print_tables(results: Sequence[SetResult]) -> None:
    summary = Table(
        *("set", "detector", "photos", "boxes"),
        *results[0].figures.summary(),
        "best F1",
        "from",
        "ms",
        box=None,
    )
    sizes = Table("AP, recall@100 by size", "detector", *results[0].figures.by_size, box=None)
    errors = Table("errors", "detector", "from", *MEANING, box=None)
    for result in results:
        title = (result.set.name, result.detector)
        summary.add_row(
            *title,
            *(str(len(result.set.images)), str(result.set.boxes)),
            *map(number, result.figures.summary().values()),
            *(number(result.best_f1), f"{result.best_from:.2f}", f"{result.milliseconds:.1f}"),
        )
        sizes.add_row(
            *title,
            *(f"{number(one['AP'])} {number(one['recall@100'])}" for one in result.figures.by_size.values()),
        )
        of_kind = result.summary()["failures"]
        errors.add_row(*title, f"{result.shown_from:.2f}", *(str(of_kind[kind]) for kind in MEANING))
    for table in (summary, sizes, errors):
        table_console.print(table)
    for result in results:
        if len(result.set.taxonomy) > 1:
            classes = Table(f"{result.set.name} by class", "AP", "AP50", "recall@100", box=None)
            for name, values in result.figures.by_class.items():
                classes.add_row(name, *map(number, values.values()))
            table_console.print(classes)
