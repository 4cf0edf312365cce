"""`magpie index migrate`"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import boto3
import click
from rich.table import Table

from local import resources
from local.commands.options import (
    counted_bar,
    examples,
    home_option,
    json_option,
    on_aws_option,
    print_json,
    table_console,
    tell,
)
from local.home import Home
from local.migration import Migration, Moved
from local.system import System
from magpie.errors import FailedPrecondition
from magpie.index.archived_objects import ArchivedObjects
from magpie.index.compact import CompactEngine
from magpie.index.redis_engine import RedisEngine
from magpie.index.redis_schema import VectorIndex
from magpie.index.search_server import SearchServer
from magpie.settings import Settings
from magpie.store.catalogue import Catalogue
from magpie.store.redis_connection import connect
from magpie.store.snapshots import Snapshots


@click.command(
    "migrate",
    epilog=examples(
        "magpie index migrate --to redis",
        "magpie index migrate --to redis --customer my-shop --queries 500",
        "magpie index migrate --to redis --on-aws          # where MAGPIE_* and AWS_* name the stack's parts",
        "magpie index migrate --to compact",
        "magpie index migrate --to compact --drop          # after the switch",
    ),
)
@click.option(
    "--to", "target", type=click.Choice(["redis", "compact"]), required=True, help="The engine to come."
)
@click.option("--customer", "customers", multiple=True, metavar="C", help="Only this one; may be repeated.")
@click.option("--bundle", default="", metavar="B", help="Only the objects of this bundle, NAME@VERSION.")
@click.option(
    "--queries", default=200, show_default=True, type=click.IntRange(1), help="Asked of both, per customer."
)
@click.option(
    "--at-least",
    default=0.98,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the ten nearest that both have to find; below it the migration is not called done.",
)
@click.option("--drop", is_flag=True, help="With --to compact: remove what the redis engine keeps.")
@on_aws_option
@home_option
@json_option
def command(
    target: str,
    customers: tuple[str, ...],
    bundle: str,
    queries: int,
    at_least: float,
    drop: bool,
    on_aws: bool,
    home: Home,
    as_json: bool,
) -> None:
    """Move the index from one engine to the other, without a failed search.

    The engine in use goes on serving. The other one is brought up to date from the catalogue, however long
    that takes; killed, the next run goes on where this one ended, and writes that arrive meanwhile are
    followed. Then both are asked the same sampled queries. If they agree, switch: the last line tells how.
    The two can serve side by side, so going back is the same switch.
    """
    if drop and target == "redis":
        raise click.UsageError(
            "--drop goes with --to compact: snapshots stay, for the redis engine reads from them what the "
            "catalogue has let go of"
        )
    with _migration(home, on_aws) as migration:
        indexes = migration.indexes(customers, bundle)
        unknown = sorted(set(customers) - {customer for customer, _, _ in indexes})
        if unknown:
            raise FailedPrecondition(f"--customer: {', '.join(unknown)} has no index to move")
        if drop:
            _refuse_if_in_use(home, on_aws)
            dropped = migration.drop(customers, bundle)
            if as_json:
                print_json({"dropped_products": dropped})
            else:
                click.echo(f"the search server no longer has the objects of {dropped} products")
            return
        moved = _move(migration, indexes, target, queries)
    differ = [one for one in moved if min(one.agreement.share, one.agreement.filtered_share) < at_least]
    if as_json:
        print_json({"to": target, "agrees": not differ, "indexes": [asdict(one) for one in moved]})
    else:
        table_console.print(_table(moved))
    if differ:
        raise FailedPrecondition(
            f"the engines agree on less than {at_least:.3f} for {', '.join(one.customer for one in differ)}: "
            "do not switch. With MAGPIE_SEARCH_INDEX=flat the redis engine is exact"
        )
    tell(
        f"both engines agree. Switch by `magpie up --engine {target}`, on AWS by the stack's parameter "
        f"Engine={target}"
    )
    if target == "compact":
        tell("and then remove what the redis engine keeps by `magpie index migrate --to compact --drop`")


def _move(
    migration: Migration, indexes: list[tuple[str, str, int]], target: str, queries: int
) -> list[Moved]:
    moved = []
    with counted_bar() as bar:
        task = bar.add_task("", total=sum(images for _, _, images in indexes))
        for customer, bundle, images in indexes:
            bar.update(task, description=f"{customer}, {bundle}")
            # The compact engine reads the catalogue itself, so there is nothing to bring up to date but the
            # documents that it is compared with.
            migration.fill(customer, bundle, lambda count: bar.advance(task, count))
            moved.append(migration.compare(customer, bundle, images, queries))
        bar.update(task, completed=bar.tasks[task].total, description=f"to {target}")
    return moved


@contextmanager
def _migration(home: Home, on_aws: bool) -> Iterator[Migration]:
    environment = dict(os.environ)
    s3: Any
    if on_aws:
        s3 = boto3.client("s3")
    else:
        state = System(home).running()
        environment |= state.environment()
        s3 = resources.client("s3", state.aws_url)
    settings = Settings.from_environment(environment)
    server = SearchServer(settings.search_redis_url, VectorIndex(settings.search_index))
    if problem := server.capabilities.problem:
        raise FailedPrecondition(problem if on_aws else f"{problem}. Here: `magpie up --redis-search`")
    with connect(settings.redis_url) as redis:
        catalogue = Catalogue(redis)
        snapshots = Snapshots(s3, settings.bucket, settings.cache)
        archive = ArchivedObjects(snapshots)
        exact = CompactEngine(catalogue, snapshots, shortlist=None)
        yield Migration(catalogue, archive, exact, RedisEngine(catalogue, server, archive))
        server.close()


def _refuse_if_in_use(home: Home, on_aws: bool) -> None:
    if not on_aws and System(home).running().engine == "redis":
        raise FailedPrecondition("the redis engine is in use: `magpie up --engine compact` comes first")


def _table(moved: list[Moved]) -> Table:
    table = Table("customer", "bundle", "images", "queries", "agreement", "under filters", box=None)
    for one in moved:
        judged = one.agreement
        table.add_row(
            *(one.customer, one.bundle, str(one.images), str(judged.queries)),
            *(f"{judged.share:.4f}", f"{judged.filtered_share:.4f}"),
        )
    return table
