"""Chooses where the sample shop's products come from."""

from __future__ import annotations

from pathlib import Path

import click

from local.sample_shop import rendered, stamps
from local.sample_shop.shop import Shop, write
from magpie.errors import Unavailable


def make(out: Path, downloads: Path | None, seed: int) -> Shop:
    """Write a shop to `out`: of stamps kept under `downloads`, else (or if None) of rendered products."""
    wares = []
    if downloads is not None:
        try:
            wares = stamps.wares(stamps.download(downloads))
        except Unavailable as reason:
            click.echo(
                f"No cut-out photographs ({reason}): the products are drawn by code instead.", err=True
            )
    return write(wares or rendered.wares(seed), out, seed)
