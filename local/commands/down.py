"""`magpie down`"""

from __future__ import annotations

import click

from local.commands.options import examples, home_option, json_option, print_json, tell
from local.home import Home
from local.system import System


@click.command("down", epilog=examples("magpie down", "magpie down --home /tmp/second"))
@home_option
@json_option
def command(home: Home, as_json: bool) -> None:
    """Stop the local system. Work at hand is finished, and the data stays."""
    stopped = System(home).down(tell)
    if as_json:
        print_json({"stopped": stopped})
    else:
        tell("Magpie is down" if stopped else "Magpie was not running")
