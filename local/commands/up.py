"""`magpie up`"""

from __future__ import annotations

from pathlib import Path

import click

from local.commands.options import examples, home_option, json_option, print_json, table_console, tell
from local.home import Home
from local.system import System
from magpie.vision.bundle import Bundle


@click.command(
    "up",
    epilog=examples(
        "magpie up",
        "magpie up --home /tmp/second",
        "magpie up --redis-url redis://127.0.0.1:6379/3   # your own Redis",
        "magpie up --http-port 8080",
        "magpie up --next-bundle .training/bundle         # for `magpie change-over`",
        "magpie up --engine redis                         # neighbours by Redis' own vector search",
    ),
)
@click.option(
    "--redis-url",
    envvar="MAGPIE_REDIS_URL",
    show_envvar=True,
    default="",
    help="Use this Redis (7 or later) or Valkey; without it one is started.",
)
@click.option(
    "--engine",
    type=click.Choice(["compact", "redis"]),
    envvar="MAGPIE_ENGINE",
    show_envvar=True,
    default="compact",
    show_default=True,
    help="What finds neighbours: Magpie in its own process, or the search of Redis (docs/scaling.md).",
)
@click.option(
    "--redis-search", is_flag=True, help="Start Redis with its search module, for `magpie index migrate`."
)
@click.option(
    "--next-bundle",
    metavar="FOLDER",
    help="A bundle to change over to, kept until it is named anew; '' ends it (docs/change-over.md).",
)
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Else the one of last time, or a free one.")
@click.option("--http-port", type=click.IntRange(1, 65535), help="The same, of Connect, gRPC-Web and JSON.")
@home_option
@json_option
def command(
    redis_url: str,
    engine: str,
    redis_search: bool,
    next_bundle: str | None,
    grpc_port: int | None,
    http_port: int | None,
    home: Home,
    as_json: bool,
) -> None:
    """Start the local system, or what of it does not run, and wait until all works.

    It listens on the loopback alone. Its data lies in the home folder and outlives a restart; uploads that a
    crash has kept from the index are sent there again.
    """
    wanted = {name: port for name, port in (("grpc", grpc_port), ("http", http_port)) if port}
    system = System(home)
    if next_bundle:
        next_bundle = str(Bundle.load(Path(next_bundle)).folder.resolve())
    started = system.up(wanted, redis_url, tell, engine, redis_search, next_bundle)
    state = system.running()
    addresses = {
        "grpc": state.grpc_address,
        "http": state.http_url,
        "redis": state.redis_url,
        "aws": state.aws_url,
    }
    if as_json:
        print_json({"home": str(home.folder.resolve()), **addresses, "started": started})
        return
    tell("Magpie is up" if started else "Magpie was up already")
    for name, address in addresses.items():
        table_console.print(f"  {name:6} {address}", highlight=False)
