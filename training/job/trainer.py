"""`python -m training.job.trainer embedding ...`: `magpie train` without the rest of the command line.

The container has the library and the training room alone.
"""

from __future__ import annotations

import importlib
import sys

import click

from magpie.errors import MagpieError


def main() -> None:
    """Run it; an error is one message on standard error, and exit code 1, or 2 if it was not understood."""
    command: click.Command = importlib.import_module("training.commands.train").command
    try:
        sys.exit(command.main(prog_name="magpie train", standalone_mode=False))
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except MagpieError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
