"""`make demo`: the main job from nothing, as the commands that a shop would type.

Every step is a call of the `magpie` command, shown before it runs, so that it can be repeated by hand.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from local.sample_shop.make import make
from magpie.tables.problems import BadFile
from magpie.tables.queries import read_queries

MAGPIE = Path(sys.executable).with_name("magpie")
SEED = 7


@dataclass(frozen=True)
class Stock:
    """What the demo works on."""

    customer: str
    catalogue: Path
    queries: Path
    photos: tuple[Path, ...]  # to search for, the first ends on the page


def magpie(*arguments: str | Path) -> None:
    """Show and run one `magpie` command. Raises CalledProcessError if it fails."""
    words = [str(argument) for argument in arguments]
    click.secho(f"\n$ .venv/bin/magpie {shlex.join(words)}", bold=True)
    subprocess.run([str(MAGPIE), *words], check=True)


def sample_stock(folder: Path) -> Stock:
    """Make the sample shop under `folder`."""
    click.secho("\nMaking a sample shop (the first time 160 MB are downloaded where apt is there)", bold=True)
    shop = make(folder / "shop", folder / "stamps", SEED)
    click.echo(f"{shop.products} products in {shop.catalogue}, {shop.photos} query photos in {shop.queries}")
    return Stock(
        "sample-shop", shop.catalogue, shop.queries, shop.tables[:1] + _first_photos(shop.queries, 2)
    )


def own_stock(folder: Path) -> Stock:
    """The user's catalogue.csv and queries.csv. Raises UsageError naming the file that is missing."""
    for name in ("catalogue.csv", "queries.csv"):
        if not (folder / name).is_file():
            raise click.UsageError(f"{folder / name} is missing (see `magpie index --help` for its columns)")
    queries = folder / "queries.csv"
    return Stock("my-shop", folder / "catalogue.csv", queries, _first_photos(queries, 3))


def _first_photos(queries: Path, count: int) -> tuple[Path, ...]:
    try:
        return tuple(query.path for query in read_queries(queries)[:count])
    except BadFile as problems:
        raise click.ClickException(str(problems)) from problems


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder with your own files.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(".demo"), show_default=True)
def main(data: Path | None, out: Path) -> None:
    """Start Magpie, index a shop, search, evaluate, and write a result page."""
    stock = own_stock(data) if data else sample_stock(out)
    begin = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    page = out / "result.html"
    customer = ("--customer", stock.customer)

    magpie("up")
    magpie("index", stock.catalogue, *customer)
    for number, photo in enumerate(stock.photos):
        to_page = ("--html", page) if number == 0 else ()
        magpie("search", photo, *customer, "-k", "3", "--explain", *to_page)
    magpie("evaluate", stock.queries, *customer)

    first = shlex.quote(str(stock.photos[0]))
    click.secho(f"\nDone in {time.monotonic() - begin:.0f} s. Open the result page:", bold=True)
    click.secho(f"  {page.resolve().as_uri()}", fg="green")
    click.echo(
        f"""
Magpie keeps running. Next:
  .venv/bin/magpie status                                  what runs, and where
  .venv/bin/magpie search {first} --customer {stock.customer} --filter "price < 20"
  .venv/bin/magpie config get --customer {stock.customer}          the ranking rules, to change and `put` back
  make demo DATA=folder                                    your own catalogue.csv and queries.csv
  make down                                                stop it; the data stays"""
    )


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)
