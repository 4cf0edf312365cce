"""`magpie parked`"""

import click

from local.commands.options import examples


@click.command("parked", epilog=examples("magpie parked"))
def command() -> None:
    """..."""
