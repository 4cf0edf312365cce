"""Photos to search with, and the catalogue to find them in: groceries, and drawn scenes with true boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from magpie.errors import InvalidArgument
from magpie.geometry import Boxes
from magpie.synthesis.products import SHOP_FAMILIES
from magpie.synthesis.shop_pictures import packshot
from training.datasets.catalogue_of_cards import DataEntry, examples_of
from training.datasets.composites import CompositeSource, rendered_cutouts
from training.datasets.example import Example
from training.embedding.recipe import read_recipe
from training.embedding.train import read_pictures

GROCERIES = "grocery-store"
# Its development photos are those that no embedder of ours was trained on.
EMBEDDER_RECIPE = Path(__file__).parents[1] / "recipes" / "default.toml"
DRAWN_PRODUCTS = 60


@dataclass(frozen=True)
class Picture:
    """A picture of one product or several."""

    load: Callable[[], Image.Image]  # RGB
    products: frozenset[str]
    group: str = ""  # figures are also given by group
    truth: Boxes | None = None  # (M, 4) where its products are, if that is known


@dataclass(frozen=True)
class Shop:
    """Photos, and the catalogue pictures to find: right is any product that the photo shows."""

    name: str
    photos: Sequence[Picture]
    catalogue: Sequence[Picture]


def grocery_photos(root: Path) -> Shop:
    """The split `val` by department, which figures are reported on."""
    photos = examples_of(DataEntry(GROCERIES, splits=("val",)), root)
    return Shop(f"{GROCERIES} val", _pictures(photos), _grocery_catalogue(root))


def grocery_development(root: Path, advance: Callable[[], None] = lambda: None) -> Shop:
    """Training photos that the default bundle's embedder was not trained on, to choose by.

    `advance` is called for every photo of the split `train`, since all are compared to divide them. Raises
    InvalidArgument if none is left.
    """
    recipe = read_recipe(EMBEDDER_RECIPE)
    only = tuple(entry for entry in recipe.data if entry.title == GROCERIES)
    pictures, _ = read_pictures(replace(recipe, data=only, held_out=()), root, advance=advance)
    if not pictures.development:
        raise InvalidArgument(GROCERIES, "has too few training photos to keep some to choose by")
    return Shop(f"{GROCERIES} development", _pictures(pictures.development), _grocery_catalogue(root))


def drawn_photos(count: int, seed: int = 0) -> Shop:
    """`count` scenes of products that no training draws, on drawn grounds; true boxes are known."""
    cutouts = rendered_cutouts(DRAWN_PRODUCTS, families=SHOP_FAMILIES)
    source = CompositeSource([], cutouts, [])
    photos = []
    for number in range(count):
        scene = source.draw_named(np.random.default_rng([seed, number]))
        if len(scene.labels):  # some products are all but hidden
            products = frozenset(str(label) for label in scene.labels)
            group = "one product" if len(scene.labels) + len(scene.ignored) == 1 else "several"
            photos.append(Picture(partial(_same, scene.image), products, group, scene.boxes))
    catalogue = [
        Picture(partial(packshot, cutout), frozenset([str(place)])) for place, cutout in enumerate(cutouts)
    ]
    return Shop("drawn scenes", photos, catalogue)


def _grocery_catalogue(root: Path) -> list[Picture]:
    return _pictures(examples_of(DataEntry(GROCERIES, splits=("gallery",)), root))


def _pictures(examples: Sequence[Example]) -> list[Picture]:
    return [
        Picture(example.load, frozenset([example.product]), example.labels.get("department", ""))
        for example in examples
        if example.product is not None
    ]


def _same(image: Image.Image) -> Image.Image:
    return image
