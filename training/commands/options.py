"""What several commands take, and how they answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

table_console = Console()  # standard output: what was asked for
notes = Console(stderr=True, highlight=False)  # standard error: progress and messages

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="MAGPIE_DATA",
    required=True,
    show_envvar=True,
    help="Folder of the data sets.",
)


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def print_json(answer: Mapping[str, Any]) -> None:
    """The one object on standard output."""
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def tell(message: str) -> None:
    """A message on standard error."""
    notes.print(message, markup=False, soft_wrap=True)
