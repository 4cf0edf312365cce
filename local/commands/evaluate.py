"""`magpie evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.progress import Progress
from rich.table import Table

from local.commands.options import (
    customer_option,
    examples,
    home_option,
    json_option,
    notes,
    print_json,
    table_console,
    tell,
)
from local.customers import reading
from local.evaluating import figures, search_all
from local.home import Home
from magpie.evaluation.retrieval import NDCG_GAIN
from magpie.tables.queries import read_queries


@click.command(
    "evaluate",
    epilog=examples(
        "magpie evaluate queries.csv --customer my-shop",
        "magpie evaluate queries.csv --customer my-shop --whole-image   # without the detector",
    ),
)
@click.argument(
    "queries", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="QUERIES.csv"
)
@customer_option
@click.option("--whole-image", is_flag=True, help="Search with the whole photo instead of the objects in it.")
@home_option
@json_option
def command(queries: Path, customer: str, whole_image: bool, home: Home, as_json: bool) -> None:
    """Measure search on photos whose right products are known.

    The file has the columns image, product_id and, if you like, grade (a number; 1 without it). Several rows
    of an image name several right products.

    The hits of all objects in a photo are merged, each product at its best score. Recall is the part of the
    right products that stands among the first k; nDCG takes the gain 2^grade - 1. Latencies are milliseconds,
    `total` as this program sees it, the stages as the server does.
    """
    content = read_queries(queries)
    with reading(home, customer) as client, Progress(console=notes, transient=as_json) as bar:
        task = bar.add_task("searching", total=len(content))
        evaluation = search_all(client, content, whole_image, lambda: bar.advance(task))
    for photo, reason in evaluation.failed.items():
        tell(f"failed, and counted as no hits: {photo}: {reason}")
    measured = figures(content, evaluation)
    if as_json:
        print_json(measured)
    else:
        _print_tables(measured)


def _print_tables(measured: dict[str, Any]) -> None:
    quality = Table(box=None, show_header=False)
    for name, value in measured.items():
        if name != "latency_ms":
            label = f"{name} (gain {NDCG_GAIN})" if name.startswith("ndcg") else name
            quality.add_row(label, str(value) if name == "queries" else f"{value:.3f}")
    latency = Table("ms", "p50", "p95", "p99", box=None)
    for stage, times in measured["latency_ms"].items():
        latency.add_row(stage, *(f"{value:.1f}" for value in times.values()))
    table_console.print(quality)
    table_console.print(latency)
