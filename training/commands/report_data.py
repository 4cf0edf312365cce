"""`magpie report-data`"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from magpie.errors import FailedPrecondition
from training.commands.options import examples, json_option, notes, print_json, table_console, tell
from training.datasets.before_training import NAMED, judge
from training.datasets.catalogue_of_cards import DataEntry, examples_of
from training.datasets.example import Example
from training.datasets.measured_picture import measure_all
from training.datasets.report import DataReport, DataSetReport, report
from training.datasets.report_page import render
from training.progress import progress

RECIPES = Path(__file__).parents[1] / "recipes"
CACHE = Path(".training/pictures.jsonl")
# Splits that nobody trains on, where no recipe says otherwise.
HELD_OUT = frozenset({"dev", "development", "eval", "queries", "query", "test", "val", "valid", "validation"})


@click.command(
    "report-data",
    epilog=examples(
        "magpie report-data shop/catalogue.csv",
        "magpie report-data photos/ --html report.html        # a folder, each sub-folder a class",
        "magpie report-data grocery-store clothing-top10 --data ../data",
        "magpie report-data --recipe default --data ../data --check",
    ),
)
@click.argument("data", nargs=-1, metavar="[DATA]...")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="RECIPE",
    help="The data sets of a recipe: a TOML file, or the name of one in training/recipes.",
)
@click.option(
    "--data",
    "root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="MAGPIE_DATA",
    default=".",
    show_default="here",
    show_envvar=True,
    help="Folder of the data sets.",
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with pictures.")
@click.option("--check", "strict", is_flag=True, help="Fail if training would refuse the data.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, dir_okay=False),
    default=CACHE,
    show_default=True,
    help="Where measurements are kept for the next time.",
)
@json_option
def command(
    data: tuple[str, ...],
    recipe: Path | None,
    root: Path,
    html: Path | None,
    strict: bool,
    cache: Path,
    as_json: bool,
) -> None:
    """What is in data sets, before training on them.

    DATA is a CSV file with the columns of a catalogue, a folder of pictures, a card (TOML), or the name of a
    card that Magpie brings, each relative to the folder of the data sets.

    Counts pictures, products and classes, how much of the taxonomy is filled in and where it contradicts
    itself, and how many pictures each source gave. Finds copies of a photograph, within and across splits,
    pictures that are blurred, dark, overexposed or small, and files that cannot be read. Says what training
    would refuse, and the way out. Splits named val, test and the like are not trained on.
    """
    if bool(data) == bool(recipe):
        raise click.UsageError("name data sets, or a recipe with --recipe")
    train, held_out, columns = _of_recipe(recipe, root) if recipe else _of_names(data, root)
    everything = [*train, *held_out]
    with progress(notes) as bar:
        task = bar.add_task("reading", total=len({example.path for example in everything}))
        paths = (example.path for example in everything)
        measured, unreadable = measure_all(paths, cache, lambda: bar.advance(task))
    found = judge(report(everything, measured, unreadable), train, held_out=held_out, columns=columns)
    if html:
        html.write_text(render(found), encoding="utf-8")
        tell(f"wrote {html}")
    if as_json:
        print_json(as_values(found))
    else:
        _print(found)
    if strict and found.refusals:
        raise FailedPrecondition(f"training would refuse the data: {len(found.refusals)} reasons, see above")


def _of_names(names: Sequence[str], root: Path) -> tuple[list[Example], list[Example], tuple[str, ...]]:
    """(train, held out, label columns that matter: all)."""
    found = [example for name in names for example in examples_of(DataEntry(name), root)]
    train = [example for example in found if example.split not in HELD_OUT]
    return train or found, [e for e in found if e.split in HELD_OUT] if train else [], ()


def _of_recipe(path: Path, root: Path) -> tuple[list[Example], list[Example], tuple[str, ...]]:
    """The same of a recipe, whose development pictures are still among those to train on."""
    from training.embedding.recipe import read_recipe  # noqa: PLC0415 - it loads torch

    shipped = RECIPES / f"{path}.toml"
    recipe = read_recipe(shipped if shipped.is_file() and not path.is_file() else path)
    train = [example for entry in recipe.data for example in examples_of(entry, root)]
    held_out = [example for entry in recipe.held_out for example in examples_of(entry, root)]
    return train, held_out, tuple(dict.fromkeys((*recipe.taxonomy, *recipe.domains)))


def as_values(found: DataReport) -> dict[str, Any]:
    """For JSON: everything in the report, and the figures that it derives."""
    values = asdict(found)
    for dataset, entry in zip(found.datasets, values["datasets"], strict=True):
        for column, counts in zip(dataset.columns, entry["columns"], strict=True):
            counts |= {"fewest": column.fewest, "median": column.median, "most": column.most}
            counts["single"] = column.single
        entry["sources"]["largest_share"] = dataset.sources.largest_share
    for group, entry in zip(found.near_duplicates, values["near_duplicates"], strict=True):
        entry |= {"pictures": [str(path) for path in group.pictures], "across": group.across}
    for name in ("unreadable", "bad_pictures"):
        for bad in values[name]:
            bad["picture"] = str(bad["picture"])
    return {"pictures": found.pictures, **values}


def _print(found: DataReport) -> None:
    for dataset in found.datasets:
        _print_dataset(dataset)
    groups = found.near_duplicates
    _say(f"photographs that are there several times: {len(groups)}, across splits: {len(found.across)}")
    for group in sorted(groups, key=lambda g: not g.across)[:NAMED]:
        how = "same bytes" if group.same_bytes else "saved again"
        said = [how, *(["ACROSS SPLITS"] if group.across else ())]
        said += ["different labels"] if group.contradicting else []
        places = (f"{path} ({where})" for path, where in zip(group.pictures, group.places, strict=True))
        _say(f"  {', '.join(said)}: " + " = ".join(places))
    _say(f"bad pictures: {len(found.bad_pictures)}")
    for bad in found.bad_pictures[:NAMED]:
        _say(f"  {bad.picture}: {', '.join(bad.faults)}")
    _say(f"unreadable files: {len(found.unreadable)}")
    for bad in found.unreadable[:NAMED]:
        _say(f"  {bad.picture}: {bad.faults[0]}")
    for title, texts in (("worth a look", found.warnings), ("training would refuse this", found.refusals)):
        if texts:
            _say(f"\n{title}:")
            for text in texts:
                _say(f"- {text}")


def _print_dataset(dataset: DataSetReport) -> None:
    splits = ", ".join(f"{split.name} {split.pictures}" for split in dataset.splits)
    _say(
        f"{dataset.name}: {dataset.pictures} pictures, {dataset.photos} photos and {dataset.catalogue} of "
        f"the catalogue{f'; {splits}' if splits else ''}"
    )
    table = Table("", "classes", "coverage", "fewest", "median", "most", "smallest", box=None)
    for column in dataset.columns:
        table.add_row(
            column.name,
            str(len(column.classes)),
            f"{column.coverage:.1%}",
            str(column.fewest),
            f"{column.median:g}",
            str(column.most),
            ", ".join(f"{entry.name} {entry.pictures}" for entry in column.classes[:3]),
        )
    table_console.print(table, highlight=False)
    for name, missing in (
        ("photo", dataset.products_without_photo),
        ("catalogue picture", dataset.products_without_catalogue),
    ):
        if missing:
            _say(f"  {len(missing)} products without a {name}, such as {', '.join(missing[:3])}")
    sources = dataset.sources
    if sources.largest:
        largest = ", ".join(f"{s.name} {s.pictures / sources.pictures:.1%}" for s in sources.largest[:5])
        _say(f"  {len(sources.largest)} sources of {sources.pictures} pictures; the largest: {largest}")
    _say("")


def _say(line: str) -> None:
    table_console.print(line, markup=False, highlight=False, soft_wrap=True)
