"""`magpie compact`"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from local.commands.options import examples, home_option, json_option, notes, print_json, tell
from local.compacting import Compacting, Row
from local.home import Home
from local.system import System


@click.command(
    "compact",
    epilog=examples(
        "magpie compact",
        "magpie compact --customer my-shop",
        "magpie compact --customer my-shop --force --json",
    ),
)
@click.option("--customer", default="", metavar="C", help="This customer's index alone.")
@click.option("--force", is_flag=True, help="Though another compaction has it, or was killed at it.")
@home_option
@json_option
def command(customer: str, force: bool, home: Home, as_json: bool) -> None:
    """Write the next snapshot of every index that has changed, now and whatever the thresholds.

    The system does so by itself: MAGPIE_COMPACT_CHANGES and MAGPIE_COMPACT_SECONDS, read by `magpie up`, say
    when. Searches go on meanwhile and find the same.

    \b
    generation  number of the snapshot that is in use now
    merged      pictures that only Redis had
    archived    pictures that Redis has let go of: two snapshots have them
    """
    compacting = Compacting(System(home).running())
    rows = _compact(compacting, compacting.indexes(customer), force=force)
    if as_json:
        print_json({"indexes": [_entry(row) for row in rows]})
        return
    if not rows:
        tell("nothing is indexed yet")
        return
    for row in rows:
        click.echo(_line(row))
    if any(row.outcome == "busy" for row in rows):
        tell("busy: another compaction has it, or was killed at it; --force does it all the same")


def _compact(compacting: Compacting, indexes: Sequence[tuple[str, str]], *, force: bool) -> list[Row]:
    rows = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=notes,
        transient=True,
    ) as bar:
        task = bar.add_task("compacting", total=len(indexes))
        for customer, bundle in indexes:

            def show(step: str, customer: str = customer) -> None:
                bar.update(task, description=f"{customer}: {step}")

            rows.append(compacting.compact(customer, bundle, show, force=force))
            bar.advance(task)
    return rows


def _entry(row: Row) -> dict[str, Any]:
    figures = {} if row.done is None else asdict(row.done)
    return {"customer": row.customer, "bundle": row.bundle, "outcome": row.outcome, **figures}


def _line(row: Row) -> str:
    done = row.done
    if done is None:
        return f"{row.customer} {row.bundle}: {row.outcome}"
    return (
        f"{row.customer} {row.bundle}: generation {done.generation}, {done.products} products, "
        f"{done.objects} objects, {done.merged} merged, {done.archived} archived in {done.seconds:.2f} s"
    )
