"""The one composition root: what is connected to what.

Everything is built on first use and nothing at import: a function that only ranks never opens Redis, and a
process that is restored from a snapshot makes its connections anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, TypeVar

import boto3
import grpc
import redis
from apig_wsgi import make_lambda_handler
from aws_lambda_powertools.utilities.idempotency.persistence.cache import CachePersistenceLayer
from botocore.config import Config

from magpie.changeover.change_overs import ChangeOvers
from magpie.changeover.operator import ChangeOverOperator
from magpie.changeover.re_embedding import ReEmbedding
from magpie.errors import FailedPrecondition
from magpie.index.compact import CompactEngine
from magpie.ingest.consumer import STEPS, EventConsumer, Queues
from magpie.rpc import native_server
from magpie.rpc.auth import Authenticator
from magpie.rpc.http_app import HttpApp
from magpie.rpc.lambda_channel import LambdaChannel
from magpie.rpc.lambda_server import LambdaServer
from magpie.rpc.local_channel import LocalChannel
from magpie.rpc.registry import ServicerRegistry
from magpie.services.bundle_search import BundleSearch
from magpie.services.by_bundle import (
    ByBundle,
    DetectionByBundle,
    EmbeddingByBundle,
    RankingConfigByBundle,
    RerankingByBundle,
)
from magpie.services.catalog import CatalogServicer
from magpie.services.detection import DetectionServicer
from magpie.services.embedding import EmbeddingServicer
from magpie.services.ranking_configs import RankingConfigServicer
from magpie.services.reranking import RerankingServicer
from magpie.services.search import SearchServicer
from magpie.services.visual_search import Stages, VisualSearchServicer
from magpie.settings import Settings
from magpie.store.catalogue import Catalogue
from magpie.store.crops import RedisCropStore
from magpie.store.customers import Customers
from magpie.store.ranking_configs import RankingConfigs
from magpie.store.redis_connection import connect
from magpie.store.serving import Serving
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
from magpie.vision.bundle_models import BundleModels
from magpie.vision.crop_store import CropStore, MemoryCropStore

Part = TypeVar("Part")


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
    def models(self) -> dict[str, BundleModels]:
        """Bundle id -> its models. The first serves every customer that never had a change-over."""
        folders = [self.settings.bundle, *filter(None, [self.settings.next_bundle])]
        known: dict[str, BundleModels] = {}
        for folder in folders:
            bundle = Bundle.load(folder)
            same = known.setdefault(bundle.id, BundleModels(bundle, self.settings.threads)).bundle
            if same.embedder_card.sha256 != bundle.embedder_card.sha256:
                raise FailedPrecondition(
                    f"MAGPIE_NEXT_BUNDLE: {folder} and {same.folder} are both {bundle.id}, but their "
                    "embedders differ: give the next one another version"
                )
        return known

    @property
    def first(self) -> BundleModels:
        """The models of MAGPIE_BUNDLE."""
        return next(iter(self.models.values()))

    @property
    def bundle(self) -> Bundle:
        """That of MAGPIE_BUNDLE."""
        return self.first.bundle

    @cached_property
    def serving(self) -> Serving:
        """Which bundle answers each customer's searches."""
        return Serving(self.redis, self.first.bundle.id)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Products, objects, and how far each image is."""
        return Catalogue(self.redis)

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
        _ = self.first.ranking_configs  # a bad file is found now, not at some customer's first search
        bundles = self._by_bundle(lambda models: models)
        return RankingConfigs(
            self.s3, self.settings.bucket, self.redis, lambda bundle: bundles.of(bundle).ranking_configs
        )

    @cached_property
    def shared_crops(self) -> ByBundle[CropStore]:
        """Crops on their way from one function to another."""
        return self._by_bundle(lambda models: RedisCropStore(self.redis, models.bundle.id, models.crop.size))

    def _by_bundle(self, make: Callable[[BundleModels], Part]) -> ByBundle[Part]:
        return ByBundle(self.models, lambda bundle: make(self.models[bundle]))

    # --- Stages --------------------------------------------------------------------------------------------

    def _detection(self, crops: ByBundle[CropStore]) -> DetectionByBundle:
        def make(models: BundleModels) -> DetectionServicer:
            kept = crops.of(models.bundle.id)
            return DetectionServicer(models.detector, kept, models.crop, self.uploads)

        return DetectionByBundle(self._by_bundle(make), self.serving)

    def _embedding(self, crops: ByBundle[CropStore]) -> EmbeddingByBundle:
        def make(models: BundleModels) -> EmbeddingServicer:
            id_ = models.bundle.id
            return EmbeddingServicer(models.embedder, crops.of(id_), self.uploads, id_)

        return EmbeddingByBundle(self._by_bundle(make))

    def _search(self) -> SearchServicer:
        return SearchServicer(self.engine, self.catalogue)

    def _reranking(self) -> RerankingByBundle:
        _ = self.first.calibration  # one that does not fit keeps the process from starting
        return RerankingByBundle(
            self._by_bundle(lambda models: RerankingServicer(models.spaces, models.calibration))
        )

    @cached_property
    def stages(self) -> Stages:
        """In this process, or in functions of their own."""
        if self.settings.stages == "lambda":
            return self._stages_of(self._function_channel)
        registry = ServicerRegistry(Telemetry("stages").call)
        crops: ByBundle[CropStore] = self._by_bundle(lambda _: MemoryCropStore())
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

    # --- Change-overs --------------------------------------------------------------------------------------

    @cached_property
    def change_overs(self) -> ChangeOvers:
        """Which customers are between two bundles."""
        return ChangeOvers(self.redis, self.bundle.id)

    @cached_property
    def re_embedding(self) -> ReEmbedding:
        """Their background. The next queue is detection's."""
        return ReEmbedding(self.change_overs, self.sqs, self.settings.next_queue_url)

    @cached_property
    def change_over_operator(self) -> ChangeOverOperator:
        """What an operator does with them."""
        search = BundleSearch(self.stages, self.ranking_configs, self.uploads)
        return ChangeOverOperator(self.change_overs, self.catalogue, self.uploads, search, self.models)

    # --- Servers -------------------------------------------------------------------------------------------

    @cached_property
    def public_registry(self) -> ServicerRegistry:
        """The services that customers call."""
        registry = ServicerRegistry(Telemetry("api").call)
        search = VisualSearchServicer(self.stages, self.ranking_configs, self.uploads, self.serving)
        catalog = CatalogServicer(self.catalogue, self.uploads, self.first.bundle.id)
        configs = RankingConfigByBundle(self._by_bundle(self._configs_of), self.serving)
        add_VisualSearchServiceServicer_to_server(search, registry.server)
        add_CatalogServiceServicer_to_server(catalog, registry.server)
        add_RankingConfigServiceServicer_to_server(configs, registry.server)
        return registry

    def _configs_of(self, models: BundleModels) -> RankingConfigServicer:
        return RankingConfigServicer(
            self.ranking_configs,
            models.spaces,
            calibrated=models.calibration is not None,
            bundle=models.bundle.id,
        )

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
        self.first.detector.load()
        self.first.embedder.load()

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
