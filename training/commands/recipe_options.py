"""Options of every command that trains from a recipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from training import recipe_file
from training.commands.options import print_json, table_console

RECIPES = Path(__file__).parents[1] / "recipes"


def parse_changes(values: tuple[str, ...]) -> dict[str, str]:
    """`key=value` words. Raises BadParameter for one without `=`."""
    for value in values:
        if "=" not in value:
            raise click.BadParameter(f"{value!r}: write KEY=VALUE, such as optimizer.lr=3e-4")
    return dict(value.split("=", 1) for value in values)


def recipe_option(folder: Path, default: str) -> Callable[[Any], Any]:
    """`--recipe`: a file, or the name of one of the recipes in `folder`."""

    def find(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
        if value is None or value.is_file():
            return value
        shipped = folder / f"{value}.toml"
        if shipped.is_file():
            return shipped
        names = [path.stem for path in folder.glob("*.toml")]
        raise click.BadParameter(f"there is no {value}{recipe_file.nearest(str(value), names)}")

    where = folder.relative_to(RECIPES.parents[1])
    return click.option(
        "--recipe",
        type=click.Path(path_type=Path),
        callback=find,
        help=f"A TOML file, or the name of one in {where}.  [default: {default}]",
    )


set_option = click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated."
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    help="Of torch. [default: all cores]",
)


def run_options(command: Any) -> Any:
    """Where a run is left, whether it goes on, who is told its numbers; and what its settings mean."""
    for option in reversed(
        (
            click.option(
                "--out", type=click.Path(path_type=Path), help="Run folder.  [default: .training/runs/RECIPE]"
            ),
            click.option("--resume", is_flag=True, help="Go on from the run folder's checkpoint, exactly."),
            threads_option,
            click.option(
                "--track", default="", metavar="URI", help="MLflow server.  [default: a local database]"
            ),
            click.option(
                "--no-track", is_flag=True, help="Tell MLflow nothing; metrics.jsonl is written anyhow."
            ),
            click.option(
                "--settings",
                is_flag=True,
                help="List all settings with --recipe and --set applied, and stop.",
            ),
        )
    ):
        command = option(command)
    return command


def print_settings(recipe: Any, values: dict[str, Any], *, as_json: bool) -> None:
    """Every setting of a recipe: its value, and what it means. `values`: the recipe as plain values."""
    if as_json:
        print_json(values)
        return
    changed = recipe_file.differences(recipe)
    table = Table("setting", "value", "", box=None)
    for key, value, meaning in recipe_file.documented(recipe):
        names = key in ("data", "held_out")
        text = ", ".join(entry.title for entry in value) if names else str(value)
        table.add_row(f"[bold]{key}[/bold]" if key in changed else key, text, meaning)
    table_console.print(table)
