"""`magpie change-over`"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from local.changing_over import bundle_id, graded, operator_of
from local.commands.options import (
    counted_bar,
    customer_option,
    examples,
    home_option,
    json_option,
    on_aws_option,
    print_json,
    table_console,
    tell,
)
from local.home import Home
from local.system import System
from magpie.changeover.operator import BACKLOG, SAMPLE, ChangeOverOperator, Verdict
from magpie.changeover.record import FailedImage, Progress

_LOOKS_SECONDS = 0.5  # between two looks of --watch
_FAILED_SHOWN = 20


def _operator(home: Home, on_aws: bool) -> ChangeOverOperator:
    return operator_of(None if on_aws else System(home).running())


@click.group(
    "change-over",
    epilog=examples(
        "magpie up --next-bundle bundles/next               # both bundles are known from now on",
        "magpie change-over start --customer my-shop",
        "magpie change-over status --customer my-shop --watch",
        "magpie change-over switch --customer my-shop --queries queries.csv",
        "magpie change-over rollback --customer my-shop     # at any time before the drop",
        "magpie change-over drop --customer my-shop",
    ),
)
def command() -> None:
    """Change one customer from a bundle of models to the next, without a failed search.

    The stored pictures are embedded by the next bundle in the background, beside the index that serves. When
    the new index is complete and finds no worse, it takes over in one step; the old one stays until it is
    dropped. See docs/change-over.md.
    """


@command.command("start", epilog=examples("magpie change-over start --customer my-shop --backlog 50"))
@customer_option
@click.option(
    "--to", default="", metavar="B", help="NAME@VERSION, or a bundle's folder.  [default: the next bundle]"
)
@click.option(
    "--backlog",
    default=BACKLOG,
    show_default=True,
    type=click.IntRange(1),
    help="Pictures on their way at once: new uploads wait behind no more than these.",
)
@on_aws_option
@home_option
@json_option
def start(customer: str, to: str, backlog: int, on_aws: bool, home: Home, as_json: bool) -> None:
    """Begin to embed the stored pictures with the next bundle; searches see nothing of it."""
    operator = _operator(home, on_aws)
    _show(operator.start(customer, bundle_id(operator, to), backlog), as_json)


@command.command("status", epilog=examples("magpie change-over status --customer my-shop --watch"))
@customer_option
@click.option("--watch", is_flag=True, help="A progress bar, until the new index is complete.")
@on_aws_option
@home_option
@json_option
def status(customer: str, watch: bool, on_aws: bool, home: Home, as_json: bool) -> None:
    """How far the index of the bundle that does not serve is, and which pictures failed."""
    operator = _operator(home, on_aws)
    if watch:
        _watch(lambda: operator.status(customer))
    _show(operator.status(customer), as_json, operator.failed(customer))


@command.command("pause", epilog=examples("magpie change-over pause --customer my-shop"))
@customer_option
@on_aws_option
@home_option
@json_option
def pause(customer: str, on_aws: bool, home: Home, as_json: bool) -> None:
    """Send no more pictures; those on their way arrive."""
    _show(_operator(home, on_aws).pause(customer), as_json)


@command.command("resume", epilog=examples("magpie change-over resume --customer my-shop --retry-failed"))
@customer_option
@click.option("--retry-failed", is_flag=True, help="Also what failed before.")
@on_aws_option
@home_option
@json_option
def resume(customer: str, retry_failed: bool, on_aws: bool, home: Home, as_json: bool) -> None:
    """Go on."""
    _show(_operator(home, on_aws).resume(customer, retry_failed), as_json)


@command.command(
    "switch",
    epilog=examples(
        "magpie change-over switch --customer my-shop",
        "magpie change-over switch --customer my-shop --queries queries.csv",
        """magpie change-over switch --customer my-shop --allow-worse "needed for the new category" """,
    ),
)
@customer_option
@click.option(
    "--queries",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Photos with known answers (image,product_id[,grade]).  [default: the customer's own pictures]",
)
@click.option(
    "--sample", default=SAMPLE, show_default=True, type=click.IntRange(1), help="Own pictures asked."
)
@click.option("--allow-missing", is_flag=True, help="Though pictures failed: they are not found any more.")
@click.option("--allow-worse", default="", metavar="REASON", help="Though it finds worse; it is recorded.")
@on_aws_option
@home_option
@json_option
def switch(
    customer: str,
    queries: Path | None,
    sample: int,
    allow_missing: bool,
    allow_worse: str,
    on_aws: bool,
    home: Home,
    as_json: bool,
) -> None:
    """Let the new bundle serve, if its index is complete and finds no worse. Takes a second to be seen."""
    operator = _operator(home, on_aws)
    with counted_bar(transient=as_json) as bar:
        task = bar.add_task("asking both", total=None)
        verdict = operator.switch(
            customer,
            graded(queries),
            allow_missing=allow_missing,
            allow_worse=allow_worse,
            sample=sample,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    serving = operator.status(customer).change_over.serving
    if as_json:
        print_json({"customer": customer, "serving": serving, **(asdict(verdict) if verdict else {})})
        return
    if verdict is None:
        tell(f"{serving} serves {customer} already")
        return
    _show_verdict(verdict)
    tell(f"{serving} serves {customer} now; `magpie change-over rollback` goes back, `drop` ends it")


@command.command("rollback", epilog=examples("magpie change-over rollback --customer my-shop"))
@customer_option
@on_aws_option
@home_option
@json_option
def rollback(customer: str, on_aws: bool, home: Home, as_json: bool) -> None:
    """Let the old bundle serve again. The new index stays, and is sent nothing until `resume`."""
    _show(_operator(home, on_aws).rollback(customer), as_json)


@command.command(
    "drop",
    epilog=examples(
        "magpie change-over drop --customer my-shop                      # the old index, after the switch",
        "magpie change-over drop --customer my-shop --bundle default@4   # give the change-over up",
    ),
)
@customer_option
@click.option("--bundle", default="", metavar="B", help="NAME@VERSION.  [default: the old one]")
@on_aws_option
@home_option
@json_option
def drop(customer: str, bundle: str, on_aws: bool, home: Home, as_json: bool) -> None:
    """Remove the index of a bundle that does not serve, for good, and end the change-over."""
    dropped = _operator(home, on_aws).drop(customer, bundle)
    if as_json:
        print_json({"customer": customer, "dropped": dropped})
    else:
        click.echo(f"the index of {customer} under {dropped} is gone")


def _watch(look: Callable[[], Progress]) -> None:
    with counted_bar(transient=True) as bar:
        task = bar.add_task("", total=None)
        while True:
            progress = look()
            of = progress.change_over
            bar.update(
                task,
                description=f"{of.customer}: {of.other}, {progress.state}",
                completed=progress.done + progress.failed,
                total=progress.total,
            )
            if progress.complete or of.paused:
                return
            time.sleep(_LOOKS_SECONDS)


def _show(progress: Progress, as_json: bool, failed: list[FailedImage] | None = None) -> None:
    of = progress.change_over
    if as_json:
        counts: dict[str, Any] = {
            name: getattr(progress, name) for name in ("done", "waiting", "on_their_way", "failed", "total")
        }
        extra = {} if failed is None else {"failures": [asdict(one) for one in failed]}
        print_json({**asdict(of), "state": progress.state, "complete": progress.complete, **counts, **extra})
        return
    table_console.print(
        f"{of.customer}: {of.from_bundle} -> {of.to_bundle}, {progress.state}; {of.serving} serves\n"
        f"index of {of.other}: {progress.done} of {progress.total} pictures, {progress.on_their_way} on "
        f"their way, {progress.failed} failed",
        highlight=False,
        markup=False,
    )
    for one in (failed or [])[:_FAILED_SHOWN]:
        tell(f"failed: {one.product_id} {one.sha256[:12]}: {one.reason}")
    if failed and len(failed) > _FAILED_SHOWN:
        tell(f"and {len(failed) - _FAILED_SHOWN} more: --json lists them")


def _show_verdict(verdict: Verdict) -> None:
    table = Table("queries", "", "metric", "old", "new", "95 % interval of the difference", "p", box=None)
    for figure in verdict.figures:
        table.add_row(
            *(figure.kind, str(figure.queries), figure.metric, f"{figure.old:.3f}", f"{figure.new:.3f}"),
            *(f"{figure.low:+.3f} to {figure.high:+.3f}", f"{figure.p:.3g}"),
        )
    table_console.print(table)
    if verdict.failed:
        tell(f"{len(verdict.failed)} pictures are not in the new index")
