"""A training set of products that our own code draws: each one's catalogue picture, and photos of it.

    python -m training.datasets.rendered --out DATA/rendered --products 500 --grounds DATA/clothing/train

Identity is learnt from pairs of a catalogue picture and a photo of the same product. Half of the products
come in two or three colours, each a product of its own, so shape and print alone do not tell them apart.
Only TRAINING_FAMILIES are drawn: the sample shop sells other families, and evaluates on them.

A product's pictures depend on the seed and the product's number alone, so a larger set holds the smaller one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.errors import InvalidArgument, MagpieError
from magpie.synthesis.backgrounds import background, part_of_photo
from magpie.synthesis.products import TRAINING_FAMILIES, render
from magpie.synthesis.scene import SceneStyle
from magpie.synthesis.shop_pictures import packshot, photo
from training.datasets.source import PICTURE_SUFFIXES

# Ten products of seven designs, again and again: (design, colour). Seven and the eight families have no
# common factor, so each family comes in one, two and three colours.
RANGE = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0))
DESIGNS = 7
COLOURS = {0: 3, 1: 2}  # of a design in RANGE; others have one

STYLE = SceneStyle(extent=(0.45, 0.95), rotation=25.0, perspective=0.18)
SHORTER_SIDE = (0.75, 1.0)  # of a photo, as a share of its longer side
QUALITY = 90  # JPEG
DEPARTMENT = "Rendered"
COLUMNS = ("image", "product_id", "kind", "split", "category", "department")


@dataclass(frozen=True)
class RenderedProduct:
    """Which design, in which colours, product `number` is."""

    number: int  # from 0

    @property
    def design(self) -> int:
        """Products of the same design differ in their colours only."""
        return self.number // len(RANGE) * DESIGNS + RANGE[self.number % len(RANGE)][0]

    @property
    def colour(self) -> int:
        return RANGE[self.number % len(RANGE)][1]

    @property
    def family(self) -> str:
        return TRAINING_FAMILIES[self.design % len(TRAINING_FAMILIES)]

    @property
    def product_id(self) -> str:
        """Such as `bottle-0007`, or `bottle-0008b` in the second of several colours."""
        several = self.design % DESIGNS in COLOURS
        return f"{self.family}-{self.design:04d}{'abc'[self.colour] if several else ''}"


@dataclass(frozen=True)
class RenderedSet:
    """How the pictures are drawn."""

    seed: int = 1
    photos: int = 4  # of each product
    size: int = 256  # px, the longer side
    grounds: tuple[
        Path, ...
    ] = ()  # photos; a part of one is the ground of every other scene. Without: drawn ones

    def cutout(self, product: RenderedProduct) -> Image.Image:
        """RGBA, cropped to what can be seen."""
        # The designs of two seeds never meet: a set has fewer than a million.
        picture = render(
            product.family, self.seed * 1_000_000 + product.design, self.size, variant=product.colour
        )
        return picture.crop(picture.getchannel("A").getbbox())

    def photo(self, cutout: Image.Image, product: RenderedProduct, index: int) -> Image.Image:
        """Photo `index` of a product, RGB. Raises InvalidArgument naming a ground that cannot be read."""
        rng = np.random.default_rng([self.seed, product.number, index])
        return photo(rng, [cutout], STYLE, self._ground(rng, of_photo=(product.number + index) % 2 == 0))

    def _ground(self, rng: np.random.Generator, of_photo: bool) -> Image.Image:
        shorter = round(self.size * rng.uniform(*SHORTER_SIDE))
        size = (self.size, shorter) if rng.random() < 0.5 else (shorter, self.size)
        if not (of_photo and self.grounds):
            return background(rng, *size)
        path = self.grounds[int(rng.integers(len(self.grounds)))]
        try:
            with Image.open(path) as ground:
                return part_of_photo(rng, ground, *size)
        except OSError as error:
            raise InvalidArgument(str(path), f"cannot be read: {error}") from error

    def described(self) -> dict[str, int | str]:
        """All that decides what a product's pictures show, to tell another set from this one."""
        names = "\n".join(f"{path.parent.name}/{path.name}" for path in self.grounds)
        return {"seed": self.seed, "size": self.size, "grounds": f"{zlib.crc32(names.encode()):08x}"}


def write(out: Path, drawn: RenderedSet, products: int, jobs: int = 1) -> Path:
    """Write `products` products to `out`, pictures first; returns the path of `out/products.csv`.

    Pictures that are there already are kept, so an interrupted run goes on where it stopped, and a larger set
    can grow from a smaller one. Raises InvalidArgument if those in `out` were drawn with other settings.
    """
    for folder in ("catalogue", "photos"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    settings = out / "drawn-with.json"
    if settings.is_file() and json.loads(settings.read_text()) != drawn.described():
        raise InvalidArgument(
            str(out), f"holds pictures drawn with other settings, see {settings.name}: choose another folder"
        )
    settings.write_text(json.dumps(drawn.described()) + "\n")
    with ExitStack() as stack:
        spread: Callable[..., Iterable[list[tuple[str, ...]]]] = map
        if jobs > 1:
            # Spawned, not forked: whoever calls may have threads.
            pool = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=get_context("spawn")))
            spread = partial(pool.map, chunksize=4)
        drawing = spread(partial(_draw, out, drawn), map(RenderedProduct, range(products)))
        bar = tqdm(drawing, total=products, desc="products", mininterval=1)
        rows = list(chain.from_iterable(bar))
    listed = out / "products.csv"
    with _partial(listed).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows(rows)
    return _partial(listed).replace(listed)


def _draw(out: Path, drawn: RenderedSet, product: RenderedProduct) -> list[tuple[str, ...]]:
    """Draw the pictures of a product that are not there yet; returns its rows of the table."""
    name = product.product_id
    images = [f"catalogue/{name}.jpg", *(f"photos/{name}-{i + 1}.jpg" for i in range(drawn.photos))]
    absent = [i for i, image in enumerate(images) if not (out / image).is_file()]
    if absent:
        cutout = drawn.cutout(product)
        for i in absent:
            picture = drawn.photo(cutout, product, i - 1) if i else packshot(cutout, drawn.size)
            _save(picture, out / images[i])
    kinds = ["catalogue", *["photo"] * drawn.photos]
    return [
        (image, name, kind, "train", product.family, DEPARTMENT)
        for image, kind in zip(images, kinds, strict=True)
    ]


def _save(picture: Image.Image, path: Path) -> None:
    picture.save(_partial(path), "JPEG", quality=QUALITY)
    _partial(path).replace(path)


def _partial(path: Path) -> Path:
    """Where a file is written before it takes its name: what has its name is whole."""
    return path.with_name(path.name + ".part")


def pictures_in(folder: Path) -> tuple[Path, ...]:
    """The pictures below a folder, sorted by path. Raises InvalidArgument if there are none."""
    found = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES))
    if not found:
        raise InvalidArgument(str(folder), "has no pictures")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.datasets.rendered",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write products.csv and pictures to"
    )
    parser.add_argument("--products", type=_count, default=400, help="how many (default: %(default)s)")
    parser.add_argument("--photos", type=_count, default=4, help="of each product (default: %(default)s)")
    parser.add_argument("--seed", type=_seed, default=1, help="another seed, other products (default: 1)")
    parser.add_argument("--size", type=_count, default=256, help="longer side in px (default: %(default)s)")
    parser.add_argument(
        "--grounds", type=Path, help="folder of photos that give every other scene its ground"
    )
    parser.add_argument(
        "--jobs", type=_count, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    given = parser.parse_args(arguments)
    try:
        grounds = pictures_in(given.grounds) if given.grounds else ()
        drawn = RenderedSet(given.seed, given.photos, given.size, grounds)
        listed = write(given.out, drawn, given.products, given.jobs)
    except MagpieError as error:
        parser.error(str(error))
    print(f"{given.products} products with {given.photos} photos each: {listed}")


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return count


def _seed(text: str) -> int:
    if (seed := int(text)) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return seed


if __name__ == "__main__":
    main()
