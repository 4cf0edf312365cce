"""Vectors of a made-up shop: a mixture of five levels in three correlated spaces, as real ones are.

An object's vector in a space is the space's mean, plus what its category, family, product, picture and the
object itself each add, at unit norm. What a level adds is Gaussian. The spaces share its coordinates and
weigh them each in its own way, so that neighbours in one space are mostly neighbours in the others.
Categories and families are of unequal size, and some products' pictures are more alike than others'.

Everything follows from the seed and the number of products, in chunks of fixed size, so that a catalogue of
any size is made in little memory, and is the same for everybody, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # (N, d)

PICTURES = 3  # of a product
OBJECTS = 4  # of a product: two of them in its last picture
PRODUCTS_A_FAMILY = 8
PRODUCTS_AT_ONCE = 4096
LATENT = 128  # coordinates that the spaces share

LEVELS = ("category", "family", "product", "picture", "object")


@dataclass(frozen=True)
class Space:
    """Lengths of what is added, up to a common factor: the sum is brought to unit norm."""

    dimension: int
    mean: float
    levels: tuple[float, ...]  # root mean square of each of LEVELS
    tail: float  # variance of coordinate i of what a level adds: exp(-i / (tail * dimension))


@dataclass(frozen=True)
class Statistics:
    """What a shop's vectors are like."""

    spaces: Mapping[str, Space]
    coarse: float  # categories' and families' variance falls by (i + 1) ** -coarse besides
    unevenness: float  # standard deviation of the logarithm of how far apart a product's pictures are


# Fitted by random search to the default bundle's vectors of 6,906 photographs (groceries, clothes, LEGO
# figures), at as many objects: cosines to the 1st, 10th, 100th and 1000th neighbour (10th, 50th and 90th
# percentile in each space and fused), mean and spread of all cosines, eigenvalues of the covariance, and how
# many of the 10 nearest two spaces have in common.
REAL = Statistics(
    spaces={
        "identity": Space(128, 0.13, (0.71, 0.55, 0.29, 0.24, 0.28), 0.36),
        "category": Space(64, 0.93, (0.53, 0.5, 0.13, 0.31, 0.14), 1.1),
        "similar": Space(64, 0.04, (0.76, 0.54, 0.32, 0.21, 0.18), 0.53),
    },
    coarse=0.51,
    unevenness=0.39,
)


class Shop:
    """`products` in families in categories. Immutable; memory is that of its families."""

    def __init__(self, products: int, seed: int, statistics: Statistics = REAL) -> None:
        if products < 1:
            raise ValueError(f"a shop needs a product, got {products}")
        self.products = products
        self._seed = seed
        self._statistics = statistics
        rng = self._rng(0)
        families = max(1, products // PRODUCTS_A_FAMILY)
        categories = max(1, round(1.5 * families**0.5))
        self._rotation = {  # of coordinates, lest they be the principal axes
            name: np.linalg.qr(rng.standard_normal((s.dimension, s.dimension)))[0].astype(np.float32)
            for name, s in statistics.spaces.items()
        }
        self._mean = {
            name: space.mean * _unit(rng.standard_normal(space.dimension).astype(np.float32)[None])
            for name, space in statistics.spaces.items()
        }
        of_categories = self._added(rng, 0, categories)
        category = _unequal(rng, categories, families)
        self._families = {
            name: of_categories[name][category] + added
            for name, added in self._added(rng, 1, families).items()
        }

    def objects(self) -> Iterator[dict[str, Vectors]]:
        """Space -> (R, d), unit norm, in chunks; object i is of product i // OBJECTS."""
        for chunk, first in enumerate(range(0, self.products, PRODUCTS_AT_ONCE)):
            count = min(PRODUCTS_AT_ONCE, self.products - first)
            rng = self._rng(1, chunk)
            products, spread = self._products(rng, PRODUCTS_AT_ONCE)
            row = np.repeat(np.arange(count), OBJECTS)
            picture = PICTURES * row + np.tile(np.minimum(np.arange(OBJECTS), PICTURES - 1), count)
            yield self._pictured(rng, products, spread, row, picture)

    def queries(self, count: int, unknown: float) -> tuple[dict[str, Vectors], NDArray[np.int64]]:
        """New pictures: space -> (count, d), and the product that each shows; -1: it is not in the shop.

        A share `unknown` of them, drawn, shows such products, of the shop's families.
        """
        drawn = self._rng(2).integers(0, self.products, count)
        asked = {
            name: np.empty((count, s.dimension), np.float32) for name, s in self._statistics.spaces.items()
        }
        for chunk in np.unique(drawn // PRODUCTS_AT_ONCE):
            (rows,) = np.nonzero(drawn // PRODUCTS_AT_ONCE == chunk)
            products, spread = self._products(self._rng(1, chunk), PRODUCTS_AT_ONCE)
            new = self._pictured(
                self._rng(3, chunk), products, spread, drawn[rows] % PRODUCTS_AT_ONCE, np.arange(len(rows))
            )
            for name, vectors in new.items():
                asked[name][rows] = vectors
        rng = self._rng(4)
        (rows,) = np.nonzero(rng.random(count) < unknown)
        products, spread = self._products(rng, max(1, len(rows)))
        for name, vectors in self._pictured(
            rng, products, spread, np.arange(len(rows)), np.arange(len(rows))
        ).items():
            asked[name][rows] = vectors
        drawn[rows] = -1
        return asked, drawn

    def _products(self, rng: np.random.Generator, count: int) -> tuple[dict[str, Vectors], Vectors]:
        """Space -> (count, d), not yet at unit norm, and (count, 1) how far apart their pictures are."""
        family = _unequal(rng, len(next(iter(self._families.values()))), count)
        added = self._added(rng, 2, count)
        spread = rng.lognormal(0.0, self._statistics.unevenness, (count, 1)).astype(np.float32)
        return {name: self._families[name][family] + added[name] for name in added}, spread

    def _pictured(
        self,
        rng: np.random.Generator,
        products: Mapping[str, Vectors],
        spread: Vectors,
        product: NDArray[np.int64],
        picture: NDArray[np.int64],
    ) -> dict[str, Vectors]:
        """Objects of `product` (R,), seen in `picture` (R,)."""
        of_pictures = self._added(rng, 3, int(picture.max(initial=-1)) + 1)
        of_objects = self._added(rng, 4, len(product))
        return {
            name: _unit(
                (products[name][product] + spread[product] * (of_pictures[name][picture] + of_objects[name]))
                @ self._rotation[name]
                + self._mean[name]
            )
            for name in products
        }

    def _added(self, rng: np.random.Generator, level: int, count: int) -> dict[str, Vectors]:
        """Space -> (count, d), what `count` members of a level add, before the rotation."""
        coordinates = rng.standard_normal((count, LATENT), np.float32)
        added = {}
        for name, space in self._statistics.spaces.items():
            place = np.arange(space.dimension)
            variance = np.exp(-place / (space.tail * space.dimension))
            if LEVELS[level] in ("category", "family"):
                variance *= (place + 1) ** -self._statistics.coarse
            length = space.levels[level] * np.sqrt(variance / variance.sum()).astype(np.float32)
            added[name] = length * coordinates[:, : space.dimension]
        return added

    def _rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, self.products, *what])


def _unequal(rng: np.random.Generator, groups: int, members: int) -> NDArray[np.int64]:
    """(members,) the group of each: a few groups are large, most are small."""
    return (groups * rng.random(members) ** 2).astype(np.int64)


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
