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
from training.commands.box_search import as_plain_search, embedder_option, print_search, search, search_option
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
from training.detection.failures import MEANING, counts
from training.detection.report import PAGE, Heading, write_report
from training.progress import progress


@click.command(
    "evaluate-detector",
    epilog=examples(
        "magpie evaluate-detector bundles/default --data photos --test coco-open-det:val2017 --not-products",
        "magpie evaluate-detector .training/runs/cards --data photos --test cards:test --out report",
        "magpie evaluate-detector bundles/default --drawn 100 --teacher teacher.onnx --json",
        "magpie evaluate-detector bundles/default --data photos --search groceries --search drawn",
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
@search_option
@embedder_option
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
    shops: tuple[str, ...],
    embedder: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure a detector: of a bundle, of a detector's card, or of a run of `magpie train detection`.

    For every set: COCO's AP, AP50, AP75 and recall at 100 boxes, by class and by size, and AP50 as
    served, with one class a box; the best F1 and the score it is reached from; the errors by kind; and the
    time of a photo on one thread. A detector of the one class `product` is judged by places alone, others by
    class name too. With --out the errors are drawn, the worst first, on a page for each set.

    With --search also what the boxes do to search: recall@1 by the whole image, the boxes and mixtures of
    them, and by true boxes in drawn scenes, ranked as for a customer who wrote no config. Which of them a
    detector's card should name (`box_policy`, `whole_image_share`) is chosen on grocery photos that are not
    reported on.
    """
    if not (tests or drawn or shops):
        raise click.UsageError("say on what: --test PATH[:SPLIT,...], --drawn COUNT or --search SHOP")
    own = contender(detector)
    if class_agnostic or teacher:
        own = own.class_agnostic()
    if drawn and own.names_classes:
        raise click.UsageError("drawn scenes have no classes: --drawn needs --class-agnostic")
    if (tests or "groceries" in shops) and data is None:
        raise click.UsageError("needs --data FOLDER (or MAGPIE_DATA)")
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
    searches = search(own, embedder or detector, shops, data or Path()) if shops else []
    content = as_plain(own, results) | ({"search": as_plain_search(searches)} if shops else {})
    if out is not None and results:
        _write(own, results, content, out)
    if as_json:
        print_json(content)
    else:
        _print_tables(results)
        print_search(searches)


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
    for name in dict.fromkeys(result.set.name for result in results):
        of_set = [result for result in results if result.set.name == name]
        photos = of_set[0].set
        line = f"{name}: {len(photos.images)} photos, {photos.boxes} boxes"
        table_console.print(line, style="bold", highlight=False)
        summary = Table("detector", *of_set[0].overview, "best F1", "from", "ms", box=None)
        sizes = Table("AP, recall@100", *of_set[0].figures.by_size, box=None)
        errors = Table("errors", *MEANING, "from", box=None)
        for result in of_set:
            summary.add_row(
                result.detector,
                *map(number, result.overview.values()),
                *(number(result.best_f1), f"{result.best_from:.2f}", f"{result.milliseconds:.1f}"),
            )
            sizes.add_row(
                result.detector,
                *(f"{number(v['AP'])} {number(v['recall@100'])}" for v in result.figures.by_size.values()),
            )
            of_kind = counts(result.failures).values()
            errors.add_row(result.detector, *map(str, of_kind), f"{result.shown_from:.2f}")
        tables = [summary, sizes, errors]
        for result in of_set:
            if len(photos.taxonomy) > 1:
                tables.append(Table(result.detector, *next(iter(result.by_class.values())), box=None))
                for label, values in result.by_class.items():
                    tables[-1].add_row(label, *map(number, values.values()))
        for table in tables:
            table_console.print(table)
