"""`magpie compare`"""

from __future__ import annotations

from pathlib import Path

import click

from magpie.errors import InvalidArgument
from training.commands.options import (
    data_option,
    examples,
    json_option,
    notes,
    print_json,
    suite_option,
    table_console,
    tell,
)
from training.evaluation.measure import present
from training.evaluation.metrics import METRICS as MEASURED
from training.evaluation.suite import Suite
from training.release.compare import METRICS, Comparison
from training.release.comparison_page import render
from training.release.comparison_tables import categories_table, flips_text, metrics_table
from training.release.measuring import compare_on
from training.release.protected_sets import DEFAULT_SUITE

SHOWN = 5  # categories and queries each way, on the terminal


@click.command(
    "compare",
    epilog=examples(
        "magpie compare bundles/default .training/new-bundle --data photos",
        "magpie compare imagenet bundles/default --data photos --html page.html",
        "magpie compare A B --data photos --metric recall@1 --metric recall@5 --set groceries --json",
    ),
)
@click.argument("bundle_a", metavar="A")
@click.argument("bundle_b", metavar="B")
@suite_option
@data_option
@click.option("--set", "sets", multiple=True, metavar="NAME", help="Only this set; may be repeated.")
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(MEASURED),
    multiple=True,
    default=METRICS,
    show_default=True,
    help="May be repeated. Each one more is one more chance of a false alarm, so p-values rise with them.",
)
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page too.")
@json_option
def command(
    *,
    bundle_a: str,
    bundle_b: str,
    suite: Path | None,
    data: Path,
    sets: tuple[str, ...],
    metrics: tuple[str, ...],
    page: Path | None,
    as_json: bool,
) -> None:
    """Is B better than A? Both answer the same queries, and are compared query by query.

    A and B are folders of bundles, or the word `imagenet` for the backbone as it comes. p is that of a paired
    randomisation test, corrected for the number of sets and metrics shown (Holm); the interval is a bootstrap
    over the queries. `better` and `worse` are said of B where p is at most 0.05. Where no difference is
    shown, `detectable` says how large one would have had to be: so many queries would have shown it four
    times of five.

    The exit code is 0 whatever the verdict; `magpie release` is what refuses.
    """
    entries = present(_chosen(Suite.load(suite or DEFAULT_SUITE), sets), data, tell)
    comparison = compare_on((bundle_a, bundle_b), entries, data, notes, tuple(dict.fromkeys(metrics)))
    if page is not None:
        page.write_text(render(comparison, bundle_a, bundle_b, data))
        tell(f"the page is {page}")
    if as_json:
        print_json({"a": bundle_a, "b": bundle_b, **comparison.as_dict()})
    else:
        print_comparison(comparison, bundle_a, bundle_b)


def print_comparison(comparison: Comparison, a: str, b: str) -> None:
    """All of it, on standard output."""
    table_console.print(f"A: {a}\nB: {b}\n", markup=False, highlight=False)
    table_console.print(metrics_table(comparison))
    for entry in comparison.sets:
        if not entry.flips:
            continue
        table_console.print(f"\n{entry.name}: recall@1 by category", style="bold")
        table_console.print(categories_table(entry, SHOWN))
        for line in flips_text(entry, SHOWN):
            table_console.print(line, markup=False, highlight=False, soft_wrap=True)


def _chosen(suite: Suite, names: tuple[str, ...]) -> Suite:
    known = {entry.name: entry for entry in suite.set}
    for name in names:
        if name not in known:
            raise InvalidArgument("--set", f"there is no set `{name}`; there is {', '.join(known)}")
    return Suite(tuple(entry for entry in suite.set if not names or entry.name in names))
