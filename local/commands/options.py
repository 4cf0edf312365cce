"""What several commands take, and how they answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from local.home import Home
from magpie.store.upload_key import CUSTOMER

DEFAULT_HOME = ".magpie"

table_console = Console()  # standard output: what was asked for
notes = Console(stderr=True, highlight=False)  # standard error: progress and messages


def _home(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Home:
    return Home(value or context.find_root().params.get("home") or Path(DEFAULT_HOME))


def _customer(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not CUSTOMER.fullmatch(value):
        raise click.BadParameter(f"{value!r}: 1 to 63 of a-z, 0-9, `-`, `_`; the first a letter or digit")
    return value


home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    callback=_home,
    help=f"Folder of the local system.  [default: {DEFAULT_HOME}, or MAGPIE_HOME]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
customer_option = click.option(
    "--customer", required=True, metavar="C", callback=_customer, help="Whose catalogue."
)
on_aws_option = click.option(
    "--on-aws", is_flag=True, help="Not the local system: the parts that MAGPIE_* and AWS_* name."
)
customer_argument = click.argument("customer", callback=_customer)


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def print_json(answer: Mapping[str, Any]) -> None:
    """The one object on standard output."""
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def counted_bar(*, transient: bool = False) -> Progress:
    """A bar on standard error: what, how far, how much longer."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=notes, transient=transient)


def tell(message: str) -> None:
    """A message on standard error."""
    notes.print(message, markup=False, soft_wrap=True)
