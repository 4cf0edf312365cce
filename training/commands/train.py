"""`magpie train`: a sub-command for each thing that is trained."""

from __future__ import annotations

import importlib

import click

from training.commands.options import examples

# name -> what `magpie train --help` says of it; each is `command` in training.commands.NAME, loaded when run.
TRAINED = {
    "embedding": "The embedder, from a recipe.",
    "detection": "A detector, from a recipe.",
    "remote": "Runs on AWS: list, follow, cancel, fetch.",
    "hash": "Binary codes for a bundle's spaces.",
    "calibration": "How probable it is that a hit is right, by its similarity.",
    "ranking": "One customer's space weights and cut-off, from graded queries.",
}


class _Trained(click.Group):
    """Loads a sub-command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(TRAINED)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in TRAINED:
            return None
        command: click.Command = importlib.import_module(f"training.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(TRAINED.items()))


@click.group(
    "train",
    cls=_Trained,
    epilog=examples(
        "magpie train embedding --recipe grocery --data photos",
        "magpie train ranking --customer my-shop --queries graded.csv --catalogue catalogue.csv",
    ),
)
def command() -> None:
    """Train models. docs/training.md leads from a folder of photos to a released bundle."""
