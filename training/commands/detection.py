"""`magpie train detection`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import torch

from training.commands.options import examples, json_option, print_json, table_console, tell
from training.commands.recipe_options import (
    RECIPES,
    parse_changes,
    print_settings,
    recipe_option,
    run_options,
    set_option,
)
from training.detection.recipe import read_recipe
from training.detection.runs import FITTED
from training.detection.train import train
from training.memory import keep_freed_memory

FOLDER = RECIPES / "detection"


@click.command(
    "detection",
    epilog=examples(
        "magpie train detection --recipe cards --data photos",
        "magpie train detection --recipe cards-dsod --data photos --set model.dsod.growth=24 --out wider",
        "magpie train detection --recipe products --data photos --teacher teacher.onnx",
        "magpie train detection --recipe cards --data photos --resume",
        "magpie train detection --settings                       # every setting, its default, what it means",
    ),
)
@recipe_option(FOLDER, "products")
@set_option
@click.option(
    "--data",
    envvar="MAGPIE_DATA",
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Of the data sets.",
)
@click.option(
    "--teacher",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="ONNX",
    help="A detector that labels pictures without boxes.",
)
@run_options
@json_option
def command(
    recipe: Path | None,
    changes: tuple[str, ...],
    data: Path | None,
    teacher: Path | None,
    out: Path | None,
    resume: bool,
    threads: int,
    track: str,
    no_track: bool,
    settings: bool,
    as_json: bool,
) -> None:
    """Train a detector: boxes of products, or of the classes of a taxonomy.

    A recipe names the data sets and the architecture, and says what differs from the defaults. Killed at any
    moment, --resume goes on to the same weights. It takes a GPU where there is one.

    The run folder gets checkpoint.pt, metrics.jsonl, recipe.json and data.json; `magpie export` makes a model
    for a bundle of it.
    """
    path = recipe or FOLDER / "products.toml"
    chosen = read_recipe(path, parse_changes(changes))
    if settings:
        print_settings(chosen, asdict(chosen), as_json=as_json)
        return
    if data is None:
        raise click.UsageError("--data is missing, and so is MAGPIE_DATA: the folder of the data sets")
    if not data.is_dir():
        raise click.BadParameter(f"there is no folder {data}", param_hint="--data")
    run_dir = out or Path(".training/runs") / path.stem
    if resume and not any((run_dir / name).is_file() for name in ("checkpoint.pt", FITTED)):
        tell(f"{run_dir} has no checkpoint yet: beginning")
    torch.set_num_threads(threads)
    keep_freed_memory()
    figures = train(
        data, run_dir, chosen, resume=resume, teacher=teacher, tracking=None if no_track else track
    )
    if as_json:
        print_json({"run": str(run_dir), "development": figures})
        return
    for name, value in figures.items():
        table_console.print(f"  {name:12} {value:.3f}", highlight=False)
    tell(f"trained: {run_dir}")
