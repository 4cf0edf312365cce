"""`magpie index`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from local.catalogue_file import read_catalogue
from local.commands import migrate
from local.commands.options import (
    customer_option,
    examples,
    home_option,
    json_option,
    notes,
    print_json,
    tell,
)
from local.customers import writing
from local.home import Home
from local.indexing import PATIENCE_SECONDS, IndexReport, index


class _OrMigrate(click.Command):
    """`magpie index CATALOGUE`, and beside it `magpie index migrate`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """That of the command that is meant. A folder of that name is `./migrate`."""
        if args[:1] == [migrate.command.name]:
            return migrate.command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(
    "index",
    cls=_OrMigrate,
    epilog=examples(
        "magpie index catalogue.csv --customer my-shop",
        "magpie index pictures/ --customer my-shop",
        "magpie index catalogue.csv --customer my-shop --json > report.json",
        "magpie index migrate --help   # from one search engine to the other",
    ),
)
@click.argument("catalogue", type=click.Path(path_type=Path, exists=True), metavar="CATALOGUE.csv|FOLDER")
@customer_option
@home_option
@json_option
def command(catalogue: Path, customer: str, home: Home, as_json: bool) -> None:
    """Put a catalogue into the index and wait until all its pictures can be found.

    \b
    CATALOGUE.csv has the columns
      product_id, image                      needed; image is relative to the file
      title, category, price, stock, group   as you like; group joins variants of one product
      any other                              an attribute, for filters and rules
    Several rows of a product are several pictures. A column of numbers alone becomes a number, one of `true`
    and `false` a flag, all others text; a number with leading zeros is a code, and text.

    In a FOLDER each sub-folder is a product, its name the id; each loose picture is one, too.

    The file is checked as a whole before anything is sent. A second run sends only what has changed. A
    picture that Magpie cannot read is reported and keeps nothing else from being indexed.
    """
    content = read_catalogue(catalogue)
    if content.skipped:
        tell(f"skipped {len(content.skipped)} files that are no pictures, such as {content.skipped[0]}")
    with writing(home, customer, PATIENCE_SECONDS) as client, _progress() as bar:
        task = bar.add_task("indexing", total=len(content.pictures), rate="")

        def show(report: IndexReport) -> None:
            done = report.indexed + len(report.failed)
            elapsed = bar.tasks[task].elapsed or 0.0
            rate = f"{done / elapsed:.1f}/s" if elapsed else ""
            bar.update(task, completed=report.settled, rate=rate)

        report = index(client, content, show)
    failed = [asdict(failure) for failure in report.failed]
    if as_json:
        counts = {"indexed": report.indexed, "unchanged": report.unchanged}
        print_json({**counts, "failed": failed, "seconds": round(report.seconds, 3)})
        return
    for failure in report.failed:
        click.echo(f"failed: {failure.image} of {failure.product_id}: {failure.reason}", err=True)
    rate = f", {report.indexed / report.seconds:.1f} pictures/s" if report.indexed else ""
    click.echo(
        f"{report.indexed} indexed, {report.unchanged} unchanged, {len(failed)} failed "
        f"in {report.seconds:.1f} s{rate}"
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=notes,
    )
