"""The one composition root: what is connected to what.

Everything is built on first use and nothing at import: a function that only ranks never opens Redis, and a
process that is restored from a snapshot makes its connections anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import boto3
import grpc
import redis
from apig_wsgi import make_lambda_handler
from aws_lambda_powertools.utilities.idempotency.persistence.cache import CachePersistenceLayer
from botocore.config import Config

from magpie.index.compact import CompactEngine
from magpie.ingest.consumer import STEPS, EventConsumer, Queues
from magpie.ranking.bundled_configs import bundled_configs
from magpie.ranking.calibration import Calibration
from magpie.rpc import native_server
from magpie.rpc.auth import Authenticator
from magpie.rpc.http_app import HttpApp
from magpie.rpc.lambda_channel import LambdaChannel
from magpie.rpc.lambda_server import LambdaServer
from magpie.rpc.local_channel import LocalChannel
from magpie.rpc.registry import ServicerRegistry
from magpie.services.catalog import CatalogServicer
from magpie.services.detection import DetectionServicer
from magpie.services.embedding import EmbeddingServicer
from magpie.services.ranking_configs import RankingConfigServicer
from magpie.services.reranking import RerankingServicer
from magpie.services.search import SearchServicer
from magpie.services.visual_search import Stages, VisualSearchServicer
from magpie.settings import Settings
from magpie.store.attribute_schemas import AttributeSchemas
from magpie.store.catalogue import Catalogue
from magpie.store.crops import RedisCropStore
from magpie.store.customers import Customers
from magpie.store.ranking_configs import RankingConfigs
from magpie.store.redis_connection import connect
from magpie.store.uploads import Uploads
from magpie.telemetry import Telemetry
from magpie.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from magpie.v1.detection_pb2_grpc import DetectionServiceStub, add_DetectionServiceServicer_to_server
from magpie.v1.embedding_pb2_grpc import EmbeddingServiceStub, add_EmbeddingServiceServicer_to_server
from magpie.v1.ranking_config_pb2_grpc import add_RankingConfigServiceServicer_to_server
from magpie.v1.reranking_pb2_grpc import RerankingServiceStub, add_RerankingServiceServicer_to_server
from magpie.v1.search_pb2_grpc import SearchServiceStub, add_SearchServiceServicer_to_server
from magpie.v1.visual_search_pb2_grpc import add_VisualSearchServiceServicer_to_server
from magpie.vision.bundle import Bundle
from magpie.vision.crop_store import CropStore, MemoryCropStore
from magpie.vision.detector import Detector
from magpie.vision.embedder import Embedder


@cache
def application() -> Application:
    """This process's application, by its environment."""
    return Application(Settings.from_environment())


class Application:
    """The parts of one process, each made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    # --- Connections ---------------------------------------------------------------------------------------

    @cached_property
    def redis(self) -> redis.Redis:
        """Catalogue, keys, caches."""
        return connect(self.settings.redis_url)

    @cached_property
    def s3(self) -> Any:
        """Signed addresses need version 4; on AWS they must name the bucket's own region."""
        style = {"addressing_style": self.settings.s3_addressing}
        return boto3.client("s3", config=Config(signature_version="s3v4", s3=style))

    @cached_property
    def sqs(self) -> Any:
        """The queues of the ingest."""
        return boto3.client("sqs")

    # --- Stores and models ---------------------------------------------------------------------------------

    @cached_property
    def bundle(self) -> Bundle:
        """The models in use."""
        return Bundle.load(self.settings.bundle)

    @cached_property
    def calibration(self) -> Calibration | None:
        """What turns a similarity into a probability, if the bundle has it."""
        bundle = self.bundle
        if bundle.calibration is None:
            return None
        return Calibration.load(bundle.folder, bundle.calibration, bundle.embedder_card.sha256)

    @cached_property
    def detector(self) -> Detector:
        """The bundle's detector."""
        return Detector(self.bundle.detector_card, self.bundle.folder, self.settings.threads)

    @cached_property
    def embedder(self) -> Embedder:
        """The bundle's embedder."""
        return Embedder(self.bundle.embedder_card, self.bundle.folder, self.settings.threads)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Products, objects, and how far each image is."""
        return Catalogue(self.redis)

    @cached_property
    def attribute_schemas(self) -> AttributeSchemas:
        """What each customer's filters can name."""
        return AttributeSchemas(self.catalogue)

    @cached_property
    def engine(self) -> CompactEngine:
        """Nearest neighbours."""
        return CompactEngine(self.catalogue)

    @cached_property
    def uploads(self) -> Uploads:
        """Pictures in the bucket."""
        return Uploads(self.s3, self.settings.bucket)

    @cached_property
    def customers(self) -> Customers:
        """Who has which API key."""
        return Customers(self.redis)

    @cached_property
    def ranking_configs(self) -> RankingConfigs:
        """Each customer's rules."""
        bundled = bundled_configs(
            self.bundle.folder, self.bundle.embedder_card.spaces, calibrated=self.calibration is not None
        )
        return RankingConfigs(self.s3, self.settings.bucket, self.redis, bundled)

    @cached_property
    def shared_crops(self) -> CropStore:
        """Crops on their way from one function to another."""
        return RedisCropStore(self.redis, self.bundle.id, self.bundle.embedder_card.input.size)

    # --- Stages --------------------------------------------------------------------------------------------

    def _detection(self, crops: CropStore) -> DetectionServicer:
        return DetectionServicer(self.detector, crops, self.bundle.embedder_card.input, self.uploads)

    def _embedding(self, crops: CropStore) -> EmbeddingServicer:
        return EmbeddingServicer(self.embedder, crops, self.uploads, self.bundle.id)

    def _search(self) -> SearchServicer:
        return SearchServicer(self.engine, self.catalogue)

    def _reranking(self) -> RerankingServicer:
        return RerankingServicer(self.bundle.embedder_card.spaces, self.calibration)

    @cached_property
    def stages(self) -> Stages:
        """In this process, or in functions of their own."""
        if self.settings.stages == "lambda":
            return self._stages_of(self._function_channel)
        registry = ServicerRegistry(Telemetry("stages").call)
        crops = MemoryCropStore()
        add_DetectionServiceServicer_to_server(self._detection(crops), registry.server)
        add_EmbeddingServiceServicer_to_server(self._embedding(crops), registry.server)
        add_SearchServiceServicer_to_server(self._search(), registry.server)
        add_RerankingServiceServicer_to_server(self._reranking(), registry.server)
        return self._stages_of(lambda _stage: LocalChannel(registry))

    def _function_channel(self, stage: str) -> LambdaChannel:
        # One attempt: a retry inside the deadline is the caller's to decide.
        client = boto3.client("lambda", config=Config(retries={"total_max_attempts": 1}, read_timeout=30))
        return LambdaChannel(client, f"{self.settings.function_prefix}-{stage}")

    def _stages_of(self, channel: Callable[[str], Any]) -> Stages:
        return Stages(
            DetectionServiceStub(channel("detection")),
            EmbeddingServiceStub(channel("embedding")),
            SearchServiceStub(channel("search")),
            RerankingServiceStub(channel("reranking")),
        )

    # --- Servers -------------------------------------------------------------------------------------------

    @cached_property
    def public_registry(self) -> ServicerRegistry:
        """The services that customers call."""
        registry = ServicerRegistry(Telemetry("api").call)
        search = VisualSearchServicer(self.stages, self.ranking_configs, self.attribute_schemas, self.uploads)
        catalog = CatalogServicer(self.catalogue, self.uploads, self.bundle.id)
        configs = RankingConfigServicer(
            self.ranking_configs,
            self.attribute_schemas,
            self.bundle.embedder_card.spaces,
            calibrated=self.calibration is not None,
        )
        add_VisualSearchServiceServicer_to_server(search, registry.server)
        add_CatalogServiceServicer_to_server(catalog, registry.server)
        add_RankingConfigServiceServicer_to_server(configs, registry.server)
        return registry

    def detection_server(self) -> LambdaServer:
        """Of functions/detection."""
        return self._stage_server("detection")

    def embedding_server(self) -> LambdaServer:
        """Of functions/embedding."""
        return self._stage_server("embedding")

    def search_server(self) -> LambdaServer:
        """Of functions/search."""
        return self._stage_server("search")

    def reranking_server(self) -> LambdaServer:
        """Of functions/reranking."""
        return self._stage_server("reranking")

    @cache  # noqa: B019  # an application lives as long as its process
    def api_server(self) -> LambdaServer:
        """Of functions/api. The function URL adds the CORS headers itself."""
        http = make_lambda_handler(self.http_app(cors=False), binary_support=True)
        return LambdaServer(self.public_registry, http=http)

    def http_app(self, cors: bool = True) -> HttpApp:
        """The public services as a WSGI app."""
        return HttpApp(self.public_registry, Authenticator(self.customers), cors)

    def native_server(self, address: str) -> grpc.Server:
        """The public services over native gRPC, started."""
        return native_server.serve(self.public_registry, address, Authenticator(self.customers))

    def warm(self) -> None:
        """Load the models now rather than at the first call."""
        self.detector.load()
        self.embedder.load()

    @cache  # noqa: B019
    def _stage_server(self, stage: str) -> LambdaServer:
        registry = ServicerRegistry(Telemetry(stage).call)
        match stage:
            case "detection":
                add_DetectionServiceServicer_to_server(self._detection(self.shared_crops), registry.server)
            case "embedding":
                add_EmbeddingServiceServicer_to_server(self._embedding(self.shared_crops), registry.server)
            case "search":
                add_SearchServiceServicer_to_server(self._search(), registry.server)
            case "reranking":
                add_RerankingServiceServicer_to_server(self._reranking(), registry.server)
                return LambdaServer(registry)
        return LambdaServer(registry, self._consumer(stage, registry))

    def _consumer(self, stage: str, registry: ServicerRegistry) -> EventConsumer:
        queues = Queues(
            self.settings.next_queue_url, self.settings.parking_queue_url, self.settings.max_receives
        )
        done = CachePersistenceLayer(client=self.redis)  # type: ignore[arg-type]  # bytes keys are fine
        return EventConsumer(STEPS[stage], registry, self.sqs, queues, self.catalogue, done)
