"""The engines of this repository, through their port and the catalogue."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from local import resources
from magpie.errors import Unavailable
from magpie.index.compact import CompactEngine
from magpie.index.compaction import compact
from magpie.index.engine import Engine, Found
from magpie.index.filter import parse
from magpie.index.hash_model import HashModel
from magpie.index.redis_engine import RedisEngine
from magpie.index.redis_schema import VectorIndex
from magpie.index.search_server import SearchServer
from magpie.index.snapshot_writer import Block, encoded, write_snapshot
from magpie.index.text_dictionary import text_hash
from magpie.ranking.config import DEFAULT_WEIGHTS
from magpie.settings import Settings
from magpie.store.catalogue import Catalogue
from magpie.store.snapshots import Pointer, Snapshots
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Box, DetectedObject, EmbeddedObject, Vector
from magpie.v1.product_pb2 import AttributeValue, Product
from magpie.vision.bundle import Bundle
from tests.bench.index.clustered_vectors import OBJECTS, PICTURES
from tests.bench.index.collection import Ids, below
from tests.bench.index.subject import Subject, objects_of

CUSTOMER = "bench"
BUCKET = "bench"
CATEGORIES = ("Juice", "Milk", "Fruit", "Vegetables", "Bread")
WRITTEN_AT_ONCE = 500  # products in a call of the catalogue
PRODUCTS_IN_A_BLOCK = 4096
_GRAPH = VectorIndex()
LEFT = np.array([0.0, 0.0, 0.0, 0.5], np.float32)  # edge of each object's box: the last picture shows two


class MagpieEngine(Subject):
    """One behind the catalogue."""

    needs = ("redis",)
    writer_is_a_process = True

    @abstractmethod
    def engine(self) -> Engine:
        """As the search function has it."""

    @cached_property
    def catalogue(self) -> Catalogue:
        """The shop's."""
        return Catalogue(redis.Redis.from_url(self.services.redis))

    @cached_property
    def bundle(self) -> Bundle:
        """In use."""
        return Bundle.load(Settings.from_environment().bundle)

    def connect(self) -> None:
        self.catalogue.generation(CUSTOMER, self.bundle.id)

    def load(self) -> None:
        self._engine = self.engine()

    def search(self, query: int, share: float | None, limit: int) -> Found:
        asked = {space: vectors[query] for space, vectors in self.collection.queries.items()}
        condition = None if share is None else parse(f"price < {below(share)}")
        return self._engine.find(CUSTOMER, self.bundle.id, [asked], condition, limit, DEFAULT_WEIGHTS)

    def rows(self, answer: Found) -> Ids:
        return np.array([row_of(found.image_sha256, found.box.x0) for found in answer.results[0]], np.int64)

    def replace(self, products: Ids) -> None:
        self.put_products(products)
        for product, other in zip(products, (products + 1) % self.collection.products, strict=True):
            self.put_objects(int(product), int(other))

    def delete(self, products: Ids) -> None:
        self.catalogue.delete_products(CUSTOMER, [f"product-{product}" for product in products])

    def put_products(self, products: Ids) -> None:
        """Into the catalogue, without their objects."""
        for first in range(0, len(products), WRITTEN_AT_ONCE):
            some = [self.product(int(product)) for product in products[first : first + WRITTEN_AT_ONCE]]
            self.catalogue.upsert_products(CUSTOMER, some, self.bundle.id)

    def put_objects(self, product: int, other: int) -> None:
        """The pictures of `product`, with the vectors of product `other`."""
        for picture in range(PICTURES):
            sha256 = sha256_of(product, picture)
            numbers = range(picture, OBJECTS if picture == PICTURES - 1 else picture + 1)
            objects = [
                EmbeddedObject(
                    object=DetectedObject(
                        box=Box(x0=LEFT[number], y0=0.0, x1=1.0, y1=1.0), label="product", score=0.9
                    ),
                    vectors=[
                        Vector(space=space, values=vectors[OBJECTS * other + number].tobytes())
                        for space, vectors in self.collection.vectors.items()
                    ],
                )
                for number in numbers
            ]
            image = IngestedImage(
                event_id=f"bench-{sha256}", customer=CUSTOMER, product_id=f"product-{product}", sha256=sha256
            )
            self.catalogue.write_objects(ObjectsEmbedded(image=image, objects=objects, bundle=self.bundle.id))

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


class Compact(MagpieEngine):
    """The default. Its first snapshot is made of vectors: pictures do not pass through the catalogue."""

    name = "compact"
    parameters = "codes of 512 bits and int8 vectors in three spaces, 400 objects rescored"
    needs = ("redis", "aws")
    compacts = True
    sources = ("shared/magpie/index", "shared/magpie/store")

    def engine(self) -> Engine:
        return CompactEngine(self.catalogue, self.snapshots)

    def connect(self) -> None:
        super().connect()
        self.snapshots.pointer(CUSTOMER, self.bundle.id)

    @cached_property
    def snapshots(self) -> Snapshots:
        """Of the shop."""
        return Snapshots(resources.client("s3", self.services.aws), BUCKET, self.folder)

    def build(self) -> dict[str, Any]:
        resources.client("s3", self.services.aws).create_bucket(Bucket=BUCKET)
        start = time.perf_counter()
        self.put_products(np.arange(self.collection.products))
        put = time.perf_counter()
        cursor = [part.cursor for part in self.catalogue.load(CUSTOMER, self.bundle.id)][-1]
        path = self.snapshots.new_path(CUSTOMER, self.bundle.id, 1)
        written = time.perf_counter()
        write_snapshot(
            path,
            self.hash_model,
            self.bundle.embedder_card.spaces,
            self._blocks(),
            generation=1,
            cursor=cursor,
        )
        built = time.perf_counter()
        # It lies on the local disk already, where a reader would download it to: S3 only has to name it.
        self.snapshots.swap(CUSTOMER, self.bundle.id, path, Pointer())
        self.catalogue.announce_snapshot(CUSTOMER, self.bundle.id, 1)
        return {"build_s": built - written, "products_s": put - start}

    def compact(self) -> dict[str, Any]:
        steps: dict[str, float] = {}

        def step(name: str) -> None:
            steps[name] = time.perf_counter()

        done = compact(self.catalogue, self.snapshots, self.hash_model, CUSTOMER, self.bundle.id, step=step)
        assert done is not None, "there was nothing to compact"
        return {"compacted_images": done.merged, "compaction_upload_s": steps["swap"] - steps["upload"]}

    @cached_property
    def hash_model(self) -> HashModel:
        """The bundle's."""
        assert self.bundle.hash is not None, "the bundle has no hash model"
        return HashModel.load(self.bundle.folder, self.bundle.hash, self.bundle.embedder_card.sha256)

    def _blocks(self) -> Iterator[Block]:
        """In the order of the ids' hashes."""
        hashes = [text_hash(f"product-{number}") for number in range(self.collection.products)]
        order = np.argsort(np.array(hashes, np.uint64), kind="stable")
        for first in range(0, len(order), PRODUCTS_IN_A_BLOCK):
            products = order[first : first + PRODUCTS_IN_A_BLOCK]
            rows = objects_of(products)
            boxes = np.ones((len(rows), 4), np.float32)
            boxes[:, 0], boxes[:, 1] = np.tile(LEFT, len(products)), 0
            vectors: dict[str, NDArray[np.float32]] = {
                space: self.collection.vectors[space][rows] for space in self.bundle.embedder_card.spaces
            }
            records, planes = encoded(self.hash_model, vectors, boxes)
            yield Block(
                products=[self.product(int(p)).SerializeToString(deterministic=True) for p in products],
                counts=[OBJECTS] * len(products),
                records=records,
                planes=planes,
                image_numbers=np.tile(np.minimum(np.arange(OBJECTS), PICTURES - 1), len(products)).astype(
                    np.uint8
                ),
            )


class RedisSearch(MagpieEngine):
    """Where one machine is outgrown. It follows the catalogue, to which every picture is written first."""

    name = "redis"
    parameters = (
        f"HNSW, M {_GRAPH.m}, EF_CONSTRUCTION {_GRAPH.ef_construction}, EF_RUNTIME {_GRAPH.ef_runtime}, "
        "float32; catalogue and index in one server"
    )
    needs = ("search",)
    largest = 100_000
    sources = ("shared/magpie/index", "shared/magpie/store")

    def engine(self) -> RedisEngine:
        return RedisEngine(self.catalogue, SearchServer(self.services.redis, _GRAPH))

    def build(self) -> dict[str, Any]:
        products = np.arange(self.collection.products)
        start = time.perf_counter()
        self.put_products(products)
        for product in products.tolist():
            self.put_objects(product, product)
        written = time.perf_counter()
        engine = self.engine()
        # As `magpie index migrate` does: a search gives up before so much is filled.
        engine.follower.compare(CUSTOMER, self.bundle.id)
        self._engine = engine
        while not self._answers():
            time.sleep(0.1)
        return {"build_s": time.perf_counter() - written, "written_s": written - start}

    def _answers(self) -> bool:
        """False while the server still builds the graph."""
        try:
            self.search(0, None, 1)
        except Unavailable:
            return False
        return True


def sha256_of(product: int, picture: int) -> str:
    """Stands for the checksum of a picture that does not exist."""
    return f"{product * PICTURES + picture:064x}"


def row_of(sha256: str, left: float) -> int:
    """The object in this picture whose box begins there."""
    product, picture = divmod(int(sha256, 16), PICTURES)
    return OBJECTS * product + picture + (left > 0)
