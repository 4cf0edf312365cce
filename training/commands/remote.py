"""`magpie train remote`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from training.commands.options import examples, json_option, print_json, table_console, tell
from training.job import remote, stack
from training.job.command import Bar, follow, stack_option

run_argument = click.argument("run")


@click.group(
    "remote",
    epilog=examples(
        "magpie train embedding --recipe my.toml --data photos --remote --upload --follow",
        "magpie train remote list",
        "magpie train remote follow my",
        "magpie train remote fetch my --out .training/runs/my",
    ),
)
def command() -> None:
    """Runs on AWS, which `magpie train embedding --remote` sends. See docs/training-on-aws.md."""


@command.command("list", epilog=examples("magpie train remote list", "magpie train remote list --json"))
@stack_option
@json_option
def list_runs(stack: str, as_json: bool) -> None:
    """All runs, and how they are."""
    states = remote.runs(_find(stack))
    if as_json:
        print_json({"runs": [asdict(state) for state in states]})
        return
    if not states:
        tell("no run was sent yet: magpie train embedding --remote")
        return
    table = Table("run", "status", "changed", "", box=None)
    for state in states:
        table.add_row(state.name, state.status.lower(), state.changed, state.reason)
    table_console.print(table)


@command.command("follow", epilog=examples("magpie train remote follow my"))
@run_argument
@stack_option
def follow_run(run: str, stack: str) -> None:
    """Show a run's log until it ends. Ctrl-C ends the showing, not the run."""
    state = follow(_find(stack), run)
    tell(f"run {run}: {state.status.lower()}")


@command.command("cancel", epilog=examples("magpie train remote cancel my"))
@run_argument
@stack_option
def cancel_run(run: str, stack: str) -> None:
    """End a run. Sent again, it goes on from its last upload."""
    jobs = remote.cancel(_find(stack), run)
    tell(f"cancelled: {', '.join(jobs)}")


@command.command("fetch", epilog=examples("magpie train remote fetch my --out .training/runs/my"))
@run_argument
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Run folder; made the same as the one in S3.  [default: .training/runs/RUN]",
)
@stack_option
@json_option
def fetch_run(run: str, out: Path | None, stack: str, as_json: bool) -> None:
    """Bring a run's folder here, for `magpie export`, or to resume it here."""
    into = out or Path(".training/runs") / run
    bar = Bar(run)
    try:
        done = remote.fetch(_find(stack), run, into, bar)
    finally:
        bar.close()
    if as_json:
        print_json({"run": str(into), "fetched": done.files, "unchanged": done.unchanged})
        return
    tell(f"fetched: {into} ({done.files} files, {done.unchanged} were here)")


_find = stack.find
