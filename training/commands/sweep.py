"""`magpie sweep`"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from rich.table import Table

from training.commands.options import data_option, examples, json_option, print_json, table_console, tell
from training.commands.recipe_options import (
    RECIPES,
    parse_changes,
    recipe_option,
    set_option,
    threads_option,
)
from training.embedding.sweep import read_plan, sweep
from training.memory import keep_freed_memory


@click.command(
    "sweep",
    epilog=examples(
        "magpie sweep --recipe sweep-example --data photos",
        "magpie sweep --recipe my-sweep.toml --data photos --set schedule.epochs=3 --out .training/sweeps/my",
    ),
)
@recipe_option(RECIPES, "default")
@set_option
@data_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: .training/sweeps/RECIPE]")
@threads_option
@json_option
def command(
    recipe: Path | None, changes: tuple[str, ...], data: Path, out: Path | None, threads: int, as_json: bool
) -> None:
    """Search for better numbers in a recipe: its table [sweep] names ranges, optuna tries them.

    Judged by the development split alone, never by what figures are reported on. A killed sweep goes on when
    it is called again; the best settings end in best.toml, which `magpie train embedding --recipe` takes.
    """
    if recipe is None:
        raise click.UsageError("--recipe is missing: a recipe with a table [sweep]")
    plan, values = read_plan(recipe, parse_changes(changes))
    folder = out or Path(".training/sweeps") / recipe.stem
    torch.set_num_threads(threads)
    keep_freed_memory()
    outcome = sweep(plan, values, data, folder, tell)
    best = folder / "best.toml"
    lines = [
        f'base = "{recipe.resolve()}"',
        *(f"{key} = {json.dumps(value)}" for key, value in outcome.best.items()),
    ]
    best.write_text("\n".join(lines) + "\n")
    if as_json:
        print_json({"best": dict(outcome.best), "value": outcome.value, "recipe": str(best)})
        return
    table = Table("trial", "", "value", "settings", box=None)
    for number, state, value, settings in sorted(outcome.trials, key=lambda t: -(t[2] or 0.0)):
        words = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items())
        table.add_row(str(number + 1), state, "" if value is None else f"{value:.4f}", words)
    table_console.print(table)
    tell(f"best: {best}; next: magpie train embedding --recipe {best} --data {data}")
