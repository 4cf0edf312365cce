"""`magpie train embedding`"""

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
from training.embedding.recipe import read_recipe
from training.embedding.train import train
from training.job.command import Remote, remote_options, submit_embedding
from training.memory import keep_freed_memory


@click.command(
    "embedding",
    epilog=examples(
        "magpie train embedding --recipe grocery --data photos",
        "magpie train embedding --recipe my.toml --data photos --set optimizer.lr=3e-4 --out runs/slower",
        "magpie train embedding --recipe my.toml --data photos --out runs/slower --resume",
        "magpie train embedding --recipe my.toml --data photos --remote --upload --follow    # on a spot GPU",
        "magpie train embedding --settings                       # every setting, its default, what it means",
    ),
)
@recipe_option(RECIPES, "default")
@set_option
@click.option(
    "--data",
    envvar="MAGPIE_DATA",
    show_envvar=True,
    metavar="FOLDER",
    help="Of the data sets; with --remote also s3://BUCKET/data/NAME.",
)
@run_options
@remote_options
@json_option
def command(
    recipe: Path | None,
    changes: tuple[str, ...],
    data: str | None,
    out: Path | None,
    resume: bool,
    threads: int,
    track: str,
    no_track: bool,
    settings: bool,
    remote: Remote | None,
    as_json: bool,
) -> None:
    """Train the embedder: three spaces (same item, same kind, look-alikes) on one backbone.

    A recipe names the data sets and says what differs from the defaults. The pictures are checked first:
    copies of held-out pictures, unreadable files and useless labels stop it before an hour is lost. Killed at
    any moment, --resume goes on to the same weights. It takes a GPU where there is one.

    The run folder gets checkpoint.pt, metrics.jsonl, recipe.json and data.json; `magpie export` makes a
    bundle of it, `mlflow ui --backend-store-uri sqlite:///.training/mlflow/mlflow.db` draws its curves.
    """
    path = recipe or RECIPES / "default.toml"
    chosen = read_recipe(path, parse_changes(changes))
    if settings:
        print_settings(chosen, asdict(chosen), as_json=as_json)
        return
    if data is None:
        raise click.UsageError("--data is missing, and so is MAGPIE_DATA: the folder of the data sets")
    if remote is not None:
        run, state = submit_embedding(path, parse_changes(changes), data, remote)
        if as_json:
            print_json({"run": run.name, "folder": str(run.folder), "status": state and state.status})
        return
    if not Path(data).is_dir():
        raise click.BadParameter(f"there is no folder {data}", param_hint="--data")
    run_dir = out or Path(".training/runs") / path.stem
    if resume and not (run_dir / "checkpoint.pt").is_file():
        tell(f"{run_dir} has no checkpoint yet: beginning")
    torch.set_num_threads(threads)
    keep_freed_memory()
    figures = train(Path(data), run_dir, chosen, resume=resume, tracking=None if no_track else track)
    if as_json:
        print_json({"run": str(run_dir), "development": figures})
        return
    for name, value in figures.items():
        table_console.print(f"  {name:32} recall@1 {value:.3f}", highlight=False)
    tell(f"trained: {run_dir}; next: magpie export {run_dir} --data {data} --out .training/bundle")
