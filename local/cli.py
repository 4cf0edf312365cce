"""The command `magpie`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from local.commands import (
    attributes,
    change_over,
    compact,
    config,
    delete,
    down,
    duplicates,
    evaluate,
    index,
    key,
    parked,
    probe,
    replay,
    search,
    similar,
    status,
    up,
)
from local.commands.options import DEFAULT_HOME, examples
from local.training_commands import WithTraining
from magpie.errors import MagpieError


@click.group(
    cls=WithTraining,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples(
        "magpie up",
        "magpie index catalogue.csv --customer my-shop",
        "magpie search photo.jpg --customer my-shop --html page.html",
        "magpie train embedding --recipe training/recipes/grocery.toml",
    ),
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MAGPIE_HOME",
    default=DEFAULT_HOME,
    show_default=True,
    show_envvar=True,
    help="Folder of the local system.",
)
@click.version_option(package_name="magpie", message="magpie %(version)s")
def magpie(home: Path) -> None:
    """Visual product search: from a phone photo to ranked products, on this machine.

    Messages and progress go to standard error, answers to standard output. The exit code is 0, or 1 if the
    command failed, or 2 if it was not understood.
    """


for command in (
    up,
    down,
    status,
    index,
    search,
    similar,
    duplicates,
    attributes,
    evaluate,
    config,
    delete,
    key,
    parked,
    probe,
    replay,
    compact,
    change_over,
):
    magpie.add_command(command.command)


def main() -> None:
    """Run it; every error is one message on standard error."""
    try:
        sys.exit(magpie.main(standalone_mode=False))
    except click.UsageError as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        _fail(error.format_message() + hint, error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except MagpieError as error:
        _fail(str(error), 1)
    except OSError as error:
        if error.filename is None:  # of no file that somebody named: a defect, which wants its traceback
            raise
        _fail(f"{error.filename}: {error.strerror}", 1)


def _fail(message: str, code: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
