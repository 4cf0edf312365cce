"""`magpie replay`"""

import click

from local.commands.options import examples


@click.command("replay", epilog=examples("magpie replay"))
def command() -> None:
    """..."""
