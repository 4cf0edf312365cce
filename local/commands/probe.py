"""`magpie probe`"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.progress import Progress
from rich.table import Table

from local.commands.options import examples, home_option, json_option, notes, print_json, table_console, tell
from local.customers import reading
from local.home import Home
from local.probing import probe_now, summaries
from local.system import System
from magpie.store.customers import Customers
from magpie.store.probe_results import KEPT, ProbeResult, ProbeResults
from magpie.store.redis_connection import connect
from magpie.tables.queries import read_queries


@click.command(
    "probe",
    epilog=examples(
        "magpie probe",
        "magpie probe --customer my-shop --last 20",
        "magpie probe --customer my-shop --queries queries.csv",
    ),
)
@click.option("--customer", default="", metavar="C", help="Of this customer alone.")
@click.option(
    "--last",
    type=click.IntRange(1, KEPT),
    default=100,
    show_default=True,
    metavar="N",
    help="Of each customer's last N probes.",
)
@click.option(
    "--queries",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="QUERIES.csv",
    help="Probe these photos now instead (columns as for `magpie evaluate`).",
)
@home_option
@json_option
def command(customer: str, last: int, queries: Path | None, home: Home, as_json: bool) -> None:
    """How much of what is nearest search finds: recall@10 of the index, customer by customer.

    A share of all searches (MAGPIE_PROBE_RATE when `magpie up` starts, .01 without it) is answered exactly
    as well, in the background; these are the last results. Nothing is said here of whether what is nearest
    is right: `magpie evaluate` measures that.
    """
    if queries is not None and not customer:
        raise click.UsageError("--queries needs --customer: whose catalogue is searched?")
    if queries is None:
        with connect(System(home).running().redis_url) as redis:
            store = ProbeResults(redis)
            customers = [customer] if customer else Customers(redis).customers()
            of_customers = {name: store.last(name, last) for name in customers}
    else:
        of_customers = {customer: _probe(home, customer, queries, quiet=as_json)}
    _print(of_customers, as_json)


def _probe(home: Home, customer: str, queries: Path, *, quiet: bool) -> list[ProbeResult]:
    content = read_queries(queries)
    client = reading(home, customer)
    with client, Progress(console=notes, transient=quiet) as bar:
        task = bar.add_task("probing", total=len(content))
        results, failed = probe_now(
            System(home).running(), client, customer, content, lambda: bar.advance(task)
        )
    for photo, reason in failed.items():
        tell(f"failed, and not counted: {photo}: {reason}")
    return results


def _print(of_customers: Mapping[str, Sequence[ProbeResult]], as_json: bool) -> None:
    rows = [row for customer, results in of_customers.items() for row in summaries(customer, results)]
    if as_json:
        print_json({"probes": [asdict(row) for row in rows]})
        return
    if not rows:
        tell("no search was probed yet: see `magpie probe --help`, or probe photos with --queries")
        return
    table = Table("customer", "bundle", "probes", "recall@10", "lowest", "not judged", "last", box=None)
    for row in rows:
        figures = ("" if value is None else f"{value:.3f}" for value in (row.recall_at_10, row.lowest))
        last = time.strftime("%m-%d %H:%M:%S", time.localtime(row.last))
        table.add_row(row.customer, row.bundle, str(row.probes), *figures, str(row.not_judged), last)
    table_console.print(table)
