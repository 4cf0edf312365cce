"""`magpie compare-detectors`"""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from magpie.errors import InvalidArgument
from training.commands.box_options import ignore_option, not_products_option, number, teacher_option
from training.commands.options import (
    data_option,
    examples,
    json_option,
    notes,
    print_json,
    table_console,
    tell,
)
from training.detection.box_sets import entry_of, read_set
from training.detection.comparison import Row, page_part, write_between
from training.detection.contender import ANY, Contender, contender, of_teacher
from training.detection.cost import cost_of_onnx, cost_of_run
from training.detection.evaluate import evaluate
from training.detection.recipe import BoxData
from training.detection.teacher import SIZE
from training.progress import progress


@click.command(
    "compare-detectors",
    epilog=examples(
        "magpie compare-detectors runs/cards runs/cards-dsod --data photos --test cards:test",
        "magpie compare-detectors runs/* --data photos --test cards:test --out docs/detectors.md",
    ),
)
@click.argument(
    "runs",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="RUN...",
    nargs=-1,
    required=True,
)
@data_option
@click.option("--test", required=True, metavar="PATH[:SPLIT,...]", help="Photos with boxes, in --data.")
@not_products_option
@ignore_option
@teacher_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PAGE",
    help="Markdown, whose table between <!-- measured: begin --> and <!-- measured: end --> is replaced.",
)
@json_option
def command(
    runs: tuple[Path, ...],
    data: Path,
    test: str,
    not_products: bool,
    ignored: tuple[str, ...],
    teacher: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Put runs of `magpie train detection` beside each other: how good they are, and what they cost.

    All are judged on the same photos: each class by itself, as COCO does; with one class a box, as a search
    answers (AP50 as served); and by places alone, which is all that a teacher is judged by. Parameters,
    GFLOPs (a multiplication and an addition are two) and times are those of the float32 network, before int8.
    """
    detectors = [contender(run) for run in runs]
    _refuse_other_classes(detectors)
    entry = entry_of(test, not_products=not_products, ignored=ignored, recipe=detectors[0].recipe)
    photos, places = (read_set(entry, data, taxonomy) for taxonomy in (detectors[0].taxonomy, ANY))
    rows = []
    with progress(notes) as bar:
        work = bar.add_task("detectors", total=len(runs) + (teacher is not None))
        for run, one in zip(runs, detectors, strict=True):
            by_class = evaluate(one, photos)
            alone = evaluate(one.class_agnostic(), places) if one.names_classes else by_class
            size = one.recipe.model.size if one.recipe else None
            rows.append(Row(one.title, size, by_class.overview, alone.figures.ap, cost_of_run(run)))
            bar.advance(work)
        if teacher is not None:
            alone = evaluate(of_teacher(teacher), places)
            rows.append(Row(teacher.stem, SIZE, None, alone.figures.ap, cost_of_onnx(teacher)))
            bar.advance(work)
    about = f"{photos.name}: {len(photos.images)} photos, {photos.boxes} boxes"
    if out is not None:
        write_between(out, page_part(rows, about))
        tell(f"the table is in {out}")
    if as_json:
        print_json({"set": _described(entry), "detectors": [row.summary() for row in rows]})
    else:
        _print_table(rows, about)


def _refuse_other_classes(detectors: list[Contender]) -> None:
    for one in detectors:
        if one.recipe is None:
            raise InvalidArgument("RUN", f"{one.title} is no run of `magpie train detection`")
        if one.taxonomy != detectors[0].taxonomy:
            raise InvalidArgument(
                "RUN",
                f"{one.title} finds {', '.join(one.taxonomy)}, {detectors[0].title} "
                f"{', '.join(detectors[0].taxonomy)}: their figures cannot be compared",
            )


def _described(entry: BoxData) -> str:
    return ":".join((entry.data, ",".join(entry.splits))).rstrip(":")


def _print_table(rows: list[Row], about: str) -> None:
    table_console.print(about, style="bold", highlight=False)
    figures = ("AP", "AP50", "AP75", "r@100", "served")
    table = Table("detector", *figures, "places", "M", "GFLOPs", "MB", "ms", "2 thr.", box=None)
    for row in rows:
        cost = row.cost
        table.add_row(
            row.detector,
            *(map(number, row.figures.values()) if row.figures else [""] * len(figures)),
            number(row.places),
            f"{cost.parameters / 1e6:.2f}",
            "" if cost.gflops is None else f"{cost.gflops:.2f}",
            f"{cost.bytes / 1e6:.1f}",
            *(f"{value:.1f}" for value in cost.ms.values()),
        )
    table_console.print(table)
