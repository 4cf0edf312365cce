"""The public search over real parts: tiny models, the four stages in process, the compact engine, Redis."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import redis
from numpy.typing import NDArray
from PIL import Image

from magpie.errors import NotFound
from magpie.index.archived_objects import ArchivedObjects
from magpie.index.compact import CompactEngine
from magpie.index.stored_vectors import CatalogueVectors
from magpie.ranking.config import DEFAULT_WEIGHTS, default_config
from magpie.rpc.context import CallContext
from magpie.rpc.local_channel import LocalChannel
from magpie.rpc.registry import ServicerRegistry
from magpie.services.detection import DetectionServicer
from magpie.services.embedding import EmbeddingServicer
from magpie.services.reranking import RerankingServicer
from magpie.services.search import SearchServicer
from magpie.services.stages import Stages
from magpie.services.visual_search import VisualSearchServicer
from magpie.store.attribute_schemas import AttributeSchemas
from magpie.store.catalogue import Catalogue
from magpie.store.pages import Pages
from magpie.store.serving import Serving
from magpie.store.snapshots import Snapshots
from magpie.v1.detection_pb2_grpc import DetectionServiceStub, add_DetectionServiceServicer_to_server
from magpie.v1.embedding_pb2_grpc import EmbeddingServiceStub, add_EmbeddingServiceServicer_to_server
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Box, DetectedObject, EmbeddedObject, Vector
from magpie.v1.product_pb2 import Product
from magpie.v1.ranking_config_pb2 import RankingConfig
from magpie.v1.reranking_pb2_grpc import RerankingServiceStub, add_RerankingServiceServicer_to_server
from magpie.v1.search_pb2_grpc import SearchServiceStub, add_SearchServiceServicer_to_server
from magpie.v1.visual_search_pb2_grpc import add_VisualSearchServiceServicer_to_server
from magpie.vision.crop_store import MemoryCropStore
from magpie.vision.detector import Detector
from magpie.vision.embedder import Embedder
from tests.unit.vision import tiny_models

BUNDLE = "tiny@1"
SPACES = {"identity": 8, "category": 4, "similar": 5}
Vectors = Mapping[str, NDArray[np.float32]]  # space -> (dimension,)


class Configs(dict[str, RankingConfig]):
    """Each customer's config, else the default."""

    def current(self, customer: str, bundle: str) -> RankingConfig:
        """As magpie.store.ranking_configs has it."""
        return self.get(customer) or default_config()


class Addresses:
    """Of the pictures: readable rather than signed."""

    def image_url(self, customer: str, product_id: str, sha256: str) -> str:
        """As magpie.store.uploads has it."""
        return f"https://bucket/{customer}/{product_id}/{sha256}"


class NoUploads:
    """An empty bucket."""

    def read_for(self, customer: str, upload_key: str) -> bytes:
        """As magpie.store.uploads has it."""
        raise NotFound(f"no upload {upload_key} of {customer}")


class WholeSearch:
    """`registry` has the public service; `catalogue`, `configs` and `pages` are what it works on."""

    def __init__(
        self,
        folder: Path,
        client: redis.Redis,
        pages: Pages | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        boxes, scores = np.array([[0.1, 0.1, 0.9, 0.9]]), np.array([[0.9]])
        detector = Detector(tiny_models.detector(folder, boxes, scores), folder, threads=1)
        card = tiny_models.embedder(folder, SPACES)
        self.embedder = Embedder(card, folder, threads=1)
        self.catalogue = Catalogue(client)
        self.configs = Configs()
        self.pages = pages or Pages(client)
        self.registry = ServicerRegistry()
        self.stage_calls: list[str] = []  # `FindCandidates` and so on
        stages, crops = ServicerRegistry(self._count), MemoryCropStore()
        add_DetectionServiceServicer_to_server(
            DetectionServicer(detector, crops, card.input, NoUploads()), stages.server
        )
        add_EmbeddingServiceServicer_to_server(
            EmbeddingServicer(self.embedder, crops, NoUploads(), BUNDLE), stages.server
        )
        add_SearchServiceServicer_to_server(
            SearchServicer(
                CompactEngine(self.catalogue, snapshots),
                self.catalogue,
                CatalogueVectors(self.catalogue, ArchivedObjects(snapshots) if snapshots else None),
            ),
            stages.server,
        )
        add_RerankingServiceServicer_to_server(RerankingServicer(SPACES), stages.server)
        channel = LocalChannel(stages)
        stubs = Stages(
            DetectionServiceStub(channel),
            EmbeddingServiceStub(channel),
            SearchServiceStub(channel),
            RerankingServiceStub(channel),
        )
        servicer = VisualSearchServicer(
            stubs,
            self.configs,
            AttributeSchemas(self.catalogue),
            Addresses(),
            self.pages,
            Serving(client, BUNDLE),
            lambda _bundle: SPACES,
        )
        add_VisualSearchServiceServicer_to_server(servicer, self.registry.server)

    def _count(self, path: str, _context: CallContext) -> AbstractContextManager[None]:
        self.stage_calls.append(path.rpartition("/")[2])
        return nullcontext()

    def put(self, customer: str, product: Product, *pictures: Sequence[Vectors]) -> None:
        """Upsert a product; each of `pictures`: the vectors of its objects, the last the whole image."""
        product.images[:] = [f"{number}" for number in range(len(pictures))]
        self.catalogue.upsert_products(customer, [product], BUNDLE)
        for sha256, vectors in zip(product.images, pictures, strict=True):
            objects = [embedded(of_object) for of_object in vectors]
            objects[-1].object.box.CopyFrom(Box(x0=0, y0=0, x1=1, y1=1))
            image = IngestedImage(event_id="e", customer=customer, product_id=product.id, sha256=sha256)
            self.catalogue.write_objects(ObjectsEmbedded(image=image, objects=objects, bundle=BUNDLE))


def embedded(vectors: Vectors) -> EmbeddedObject:
    """As a message."""
    return EmbeddedObject(
        object=DetectedObject(box=Box(x0=0.1, y0=0.1, x1=0.9, y1=0.9), label="product", score=0.9),
        vectors=[Vector(space=space, values=vector.tobytes()) for space, vector in vectors.items()],
    )


def some_vectors(rng: np.random.Generator) -> Vectors:
    """Random, of unit norm."""
    vectors = {space: rng.normal(size=dimension) for space, dimension in SPACES.items()}
    return {space: (v / np.linalg.norm(v)).astype("<f4") for space, v in vectors.items()}


def similarity(a: Vectors, b: Vectors, shares: Mapping[str, float] = DEFAULT_WEIGHTS) -> float:
    """Weighted mean of the cosines."""
    return sum(share * float(np.dot(a[space].astype(float), b[space])) for space, share in shares.items())


def photo(left: tuple[int, int, int], right: tuple[int, int, int]) -> bytes:
    """A PNG of two colours, side by side."""
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :64], pixels[:, 64:] = left, right
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
