"""The commands of the training room, which need PyTorch: found by name, loaded when one of them is run.

So `magpie search` never waits for torch, and works where it is not installed.
"""

from __future__ import annotations

import importlib

import click

from magpie.errors import FailedPrecondition

# name -> what `magpie --help` says of it. Each is `command` in training.commands.NAME (`-` written `_`).
COMMANDS = {
    "train": "Train models: the embedder, a customer's ranking.",
    "sweep": "Search for better numbers in a recipe.",
    "report-data": "What is in a data set, before training on it.",
    "boxes": "Annotations of boxes: what is wrong, what is missing, Label Studio.",
    "export": "A trained run as a bundle: models, codes, calibration.",
    "evaluate-model": "Measure a bundle; an HTML report.",
    "evaluate-detector": "Measure a detector on photos with boxes; its errors as pictures.",
    "compare-detectors": "Detectors beside each other: a table for a page.",
    "compare": "Is one bundle better than another?",
    "release": "Put a bundle in the place of another, if it is not worse.",
}


class WithTraining(click.Group):
    """A group that also has the training room's commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours first."""
        return [*super().list_commands(ctx), *COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Raises FailedPrecondition if the command's room is not installed."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        try:
            module = importlib.import_module(f"training.commands.{cmd_name.replace('-', '_')}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ("training", "magpie", "local"):
                raise
            raise FailedPrecondition(
                f"`magpie {cmd_name}` needs {error.name}, which is not installed: run `make setup-training`"
            ) from error
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Without loading what is only listed."""
        own = [(name, self.commands[name].get_short_help_str(90)) for name in self.commands]
        with formatter.section("Commands"):
            formatter.write_dl(own)
        with formatter.section("Commands of training (`make setup-training`)"):
            formatter.write_dl(list(COMMANDS.items()))
