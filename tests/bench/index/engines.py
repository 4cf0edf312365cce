"""The engines of this repository, through their port."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import redis

from magpie.index.compact import CompactEngine
from magpie.index.engine import Engine, Found
from magpie.index.filter import parse
from magpie.ranking.config import DEFAULT_WEIGHTS
from magpie.store.catalogue import Catalogue
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Box, DetectedObject, EmbeddedObject, Vector
from magpie.v1.product_pb2 import AttributeValue, Product
from tests.bench.index.clustered_vectors import OBJECTS, PICTURES
from tests.bench.index.collection import Ids, below
from tests.bench.index.subject import Subject

CUSTOMER = "bench"
BUNDLE = "default@3"
CATEGORIES = ("Juice", "Milk", "Fruit", "Vegetables", "Bread")
PRODUCTS_AT_ONCE = 25  # a call of the catalogue


class MagpieEngine(Subject):
    """One behind the catalogue."""

    needs_redis = True
    writer_is_a_process = True

    @abstractmethod
    def engine(self) -> Engine:
        """As the search function has it."""

    def catalogue(self) -> Catalogue:
        """The shop's."""
        return Catalogue(redis.Redis.from_url(self.redis_url))

    def load(self) -> None:
        self._engine = self.engine()
        self._catalogue = self.catalogue()

    def search(self, query: int, share: float | None, limit: int) -> Found:
        asked = {space: vectors[query] for space, vectors in self.collection.queries.items()}
        condition = None if share is None else parse(f"price < {below(share)}")
        return self._engine.find(CUSTOMER, BUNDLE, [asked], condition, limit, DEFAULT_WEIGHTS)

    def rows(self, answer: Found) -> Ids:
        return np.array([row_of(found.image_sha256, found.box.x0) for found in answer.results[0]], np.int64)

    def replace(self, products: Ids) -> None:
        for first in range(0, len(products), PRODUCTS_AT_ONCE):
            some = products[first : first + PRODUCTS_AT_ONCE]
            self._catalogue.upsert_products(CUSTOMER, [self.product(p) for p in some], BUNDLE)
            for product, of in zip(some, (some + 1) % self.collection.products, strict=True):
                self._write(int(product), int(of))

    def delete(self, products: Ids) -> None:
        for first in range(0, len(products), PRODUCTS_AT_ONCE):
            some = products[first : first + PRODUCTS_AT_ONCE]
            self._catalogue.delete_products(CUSTOMER, [f"product-{product}" for product in some])

    def fill(self) -> None:
        """Write everything through the catalogue."""
        self._catalogue = self.catalogue()
        for first in range(0, self.collection.products, PRODUCTS_AT_ONCE):
            some = range(first, min(first + PRODUCTS_AT_ONCE, self.collection.products))
            self._catalogue.upsert_products(CUSTOMER, [self.product(p) for p in some], BUNDLE)
            for product in some:
                self._write(product, product)

    def product(self, number: int) -> Product:
        """As a shop describes it."""
        return Product(
            id=f"product-{number}",
            title=f"Product {number}",
            category=CATEGORIES[number % len(CATEGORIES)],
            price=float(self.collection.prices[number]),
            attributes={"brand": AttributeValue(text=f"brand-{number % 50}")},
            images=[sha256_of(number, picture) for picture in range(PICTURES)],
        )

    def _write(self, product: int, of: int) -> None:
        """The pictures of `product`, with the vectors of product `of`."""
        rows = range(OBJECTS * of, OBJECTS * of + OBJECTS)
        for picture in range(PICTURES):
            sha256 = sha256_of(product, picture)
            last = OBJECTS if picture == PICTURES - 1 else picture + 1
            objects = [
                EmbeddedObject(
                    object=DetectedObject(box=box_of(number), label="product", score=0.9),
                    vectors=[
                        Vector(space=space, values=vectors[rows[number]].tobytes())
                        for space, vectors in self.collection.vectors.items()
                    ],
                )
                for number in range(picture, last)
            ]
            image = IngestedImage(
                event_id=f"bench-{sha256}", customer=CUSTOMER, product_id=f"product-{product}", sha256=sha256
            )
            self._catalogue.write_objects(ObjectsEmbedded(image=image, objects=objects, bundle=BUNDLE))


class Compact(MagpieEngine):
    """The default."""

    name = "compact"
    parameters = "exact float32 in process"
    largest = 10_000
    sources = ("shared/magpie/index", "shared/magpie/store")

    def engine(self) -> Engine:
        return CompactEngine(self.catalogue())

    def build(self) -> dict[str, Any]:
        self.fill()
        return {}


def sha256_of(product: int, picture: int) -> str:
    """Stands for the checksum of a picture that does not exist."""
    return f"{product * PICTURES + picture:064x}"


def box_of(number: int) -> Box:
    """Of object `number` of a product: the last picture shows two side by side."""
    return Box(x0=0.5 if number == PICTURES else 0.0, y0=0.0, x1=1.0, y1=1.0)


def row_of(sha256: str, left: float) -> int:
    """The object in this picture whose box begins there."""
    product, picture = divmod(int(sha256, 16), PICTURES)
    return OBJECTS * product + picture + (left > 0)
