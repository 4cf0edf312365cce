"""`--search` of `magpie evaluate-detector`: what the boxes do to search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from rich.table import Table

from magpie.errors import InvalidArgument
from magpie.settings import default_bundle
from magpie.vision.bundle import MANIFEST
from magpie.vision.detector import Detection
from training.commands.options import notes, table_console
from training.detection.contender import Contender
from training.detection.retrieval import CATALOGUES, POLICIES, SearchResult, measure_search
from training.detection.searched_pictures import Shop, drawn_photos, grocery_development, grocery_photos
from training.progress import progress
from training.ranking.serving_path import MAX_QUERY_OBJECTS
from training.release.contender import contender as embedder_of

DRAWN = 200  # scenes
# What the chosen policy is compared with: how a card without a choice serves, and search without a detector.
COMPARED = ("all boxes", "whole image")

search_option = click.option(
    "--search",
    "shops",
    multiple=True,
    type=click.Choice(["groceries", "drawn"]),
    help="Also what the boxes do to search, in this shop; may be repeated.",
)
embedder_option = click.option(
    "--embedder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="BUNDLE",
    help="Whose embedder searches.  [default: the detector's own bundle, else the default bundle]",
)


def search(own: Contender, folder: Path, shops: Sequence[str], data: Path) -> list[SearchResult]:
    """Every policy in every shop. Groceries are two: photos to choose a policy by, and those reported on.

    `folder` is that of a bundle with an embedder, else the default bundle's is taken. Raises InvalidArgument
    if the detector has no card: a run's boxes have no score yet from which they are shown.
    """
    serving = own.serving
    if serving is None:
        raise InvalidArgument("--search", f"{own.title} has no card: make a bundle of it by `magpie export`")
    embedder = embedder_of(str(folder if (folder / MANIFEST).is_file() else default_bundle()))

    def find(image: Image.Image) -> list[Detection]:
        return serving.detect(np.asarray(image), MAX_QUERY_OBJECTS)

    results = []
    with progress(notes) as bar:
        for shop in _shops(shops, data):
            task = bar.add_task(f"{shop.name}: searching", total=len(shop.photos) + len(shop.catalogue))
            advance = lambda task=task: bar.advance(task)  # noqa: E731
            results.append(measure_search(shop, find, embedder.run, embedder.spec, embedder.hubness, advance))
    return results


def as_plain_search(results: Sequence[SearchResult]) -> dict[str, Any]:
    """JSON-ready, by shop; and which policy the first shop of groceries chooses."""
    return {"chosen": _chosen(results), "shops": {result.shop: result.summary() for result in results}}


def print_search(results: Sequence[SearchResult]) -> None:
    """A table for each shop: what a photo is searched by, and what a catalogue picture is found by."""
    chosen = _chosen(results)
    for result in results:
        groups = sorted(set(result.groups) - {""})
        line = f"{result.shop}: {len(result.groups)} photos, {result.boxed:.0%} with a box; recall@1"
        table_console.print(line, style="bold", highlight=False)
        table = Table("catalogue by", *CATALOGUES, *(f"both: {group}" for group in groups), box=None)
        for policy in result.hits:
            table.add_row(
                f"[bold]{policy}[/bold]" if policy == chosen else policy,
                *(f"{result.recall(policy, by):.3f}" for by in CATALOGUES),
                *(f"{result.recall(policy, group=group):.3f}" for group in groups),
            )
        table_console.print(table)
        if chosen is not None:
            for other in [name for name in COMPARED if name != chosen]:
                off, low, high = result.difference(chosen, other)
                line = f"{chosen} less {other}: {off:+.3f} ({low:+.3f} to {high:+.3f})"
                table_console.print(line, highlight=False)
    if chosen is not None:
        best = POLICIES[chosen]
        line = f'for the card: "box_policy": "{best.boxes}", "whole_image_share": {best.whole_image_share}'
        table_console.print(line, highlight=False)


def _shops(names: Sequence[str], data: Path) -> list[Shop]:
    shops = []
    if "groceries" in names:
        with notes.status("dividing the groceries' training photos"):
            shops += [grocery_development(data), grocery_photos(data)]
    if "drawn" in names:
        shops.append(drawn_photos(DRAWN))
    return shops


def _chosen(results: Sequence[SearchResult]) -> str | None:
    """By the photos that are not reported on; None: they were not asked for."""
    return next((result.best for result in results if result.shop.endswith("development")), None)
