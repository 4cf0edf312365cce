"""`python -m local.sample_shop --out DIR`"""

from __future__ import annotations

from pathlib import Path

import click

from local.sample_shop.make import make


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write the shop to.")
@click.option(
    "--stamps", type=click.Path(path_type=Path), help="Where downloads are kept. Default: OUT/stamps."
)
@click.option("--rendered", is_flag=True, help="Draw all products by code, download nothing.")
@click.option("--seed", default=7, show_default=True, help="Another seed, another shop.")
def main(out: Path, stamps: Path | None, rendered: bool, seed: int) -> None:
    """Write a sample shop: catalogue.csv, queries.csv and their pictures."""
    shop = make(out, None if rendered else stamps or out / "stamps", seed)
    click.echo(f"{shop.products} products in {shop.catalogue}, {shop.photos} query photos in {shop.queries}")


if __name__ == "__main__":
    main()
