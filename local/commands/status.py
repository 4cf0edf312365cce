"""`magpie status`"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict

import click
from rich.table import Table

from local import resources
from local.commands.options import examples, home_option, json_option, print_json, table_console, tell
from local.compacting import COUNTED, Compacting
from local.home import Home, RunState
from local.system import ProcessStatus, System
from magpie.errors import Unavailable
from magpie.index.compaction_policy import Backlog
from magpie.index.search_server import SearchServer
from magpie.settings import Settings


@click.command("status", epilog=examples("magpie status", "magpie status --json"))
@home_option
@json_option
def command(home: Home, as_json: bool) -> None:
    """What runs, where, how it is, how much waits in the queues, and how far each index is compacted."""
    processes = System(home).status()
    work = {process.name for process in processes if process.health == "ok"}
    state = home.run_state()
    queues = resources.depths(state.aws_url) if "aws" in work else {}
    indexes = _backlogs(state) if "aws" in work and state.engine == "compact" else []
    search = _search_server(state)
    if as_json:
        print_json(
            {
                "home": str(home.folder.resolve()),
                "running": bool(processes) and all(process.health == "ok" for process in processes),
                "processes": [asdict(process) for process in processes],
                "queues": {stage: asdict(depth) for stage, depth in queues.items()},
                "indexes": [asdict(backlog) for backlog in indexes],
                **({"search": search} if search else {}),
            }
        )
        return
    if not processes:
        tell(f"No local system has run in {home.folder}: start one with `magpie up`")
        return
    table_console.print(_process_table(processes))
    if search:
        table = Table("search", "", box=None)
        for line in search.items():
            table.add_row(*line)
        table_console.print(table)
    if queues:
        table_console.print(_queue_table(queues))
        if any(depth.parked for depth in queues.values()):
            tell("`magpie parked` tells why, `magpie replay` tries again")
    if indexes:
        table_console.print(_index_table(indexes))


def _backlogs(state: RunState) -> list[Backlog]:
    """None while Redis is away."""
    with suppress(Unavailable):
        return list(Compacting(state).backlogs())
    return []


def _search_server(state: RunState) -> dict[str, str]:
    """What the redis engine has found, where it is in use."""
    if state.engine != "redis" or not state.ports:
        return {}
    settings = Settings.from_environment(os.environ | state.environment())
    server = SearchServer(settings.search_redis_url)
    try:
        return server.capabilities.lines()
    except Unavailable as problem:
        return {"server": str(problem)}
    finally:
        server.close()


def _process_table(processes: list[ProcessStatus]) -> Table:
    table = Table("process", "pid", "port", "memory", "health", box=None)
    for process in processes:
        memory = "" if process.memory_mb is None else f"{process.memory_mb:.0f} MiB"
        colour = "green" if process.health == "ok" else "red"
        cells = (process.name, str(process.pid or ""), str(process.port or ""), memory)
        table.add_row(*cells, f"[{colour}]{process.health}[/]")
    return table


def _index_table(indexes: list[Backlog]) -> Table:
    table = Table("index", "bundle", "snapshot", "changes since", box=None)
    for backlog in indexes:
        changes = f"{backlog.changes}{'' if backlog.changes < COUNTED else ' or more'}"
        table.add_row(backlog.customer, backlog.bundle, str(backlog.generation or "none"), changes)
    return table


def _queue_table(queues: dict[str, resources.Depth]) -> Table:
    table = Table("queue", "waiting", "in flight", "parked", box=None)
    for stage, depth in queues.items():
        table.add_row(stage, str(depth.waiting), str(depth.in_flight), str(depth.parked))
    return table
