"""What several commands take, and how they answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from training.datasets.catalogue_of_cards import DataEntry

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


suite_option = click.option(
    "--suite",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Evaluation sets (TOML).  [default: training/evaluation/suites/default.toml]",
)


class EntryType(click.ParamType[DataEntry]):
    """`DATA` or `DATA:SPLIT,SPLIT`."""

    name = "DATA[:SPLIT,...]"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,  # noqa: ARG002
    ) -> DataEntry:
        """Any text is one; whether there is such a data set is seen when it is read."""
        if isinstance(value, DataEntry):
            return value
        data, _, splits = str(value).partition(":")
        return DataEntry(data, tuple(split for split in splits.split(",") if split))


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def print_json(answer: Mapping[str, Any]) -> None:
    """The one object on standard output."""
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def tell(message: str) -> None:
    """A message on standard error."""
    notes.print(message, markup=False, soft_wrap=True)
