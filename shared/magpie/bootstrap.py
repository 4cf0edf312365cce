"""The one composition root: what is connected to what.

Everything is built on first use and nothing at import: a function that only ranks never opens Redis, and a
process that is restored from a snapshot makes its connections anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from magpie.index.archived_objects import ArchivedObjects
from magpie.index.compact import CompactEngine
from magpie.index.compaction_policy import Thresholds
from magpie.index.compaction_round import CompactionRound
from magpie.index.engine import Engine
from magpie.index.hash_model import HashModel
from magpie.index.redis_engine import RedisEngine
from magpie.index.redis_schema import VectorIndex
from magpie.index.search_server import SearchServer
from magpie.index.stored_vectors import CatalogueVectors
from magpie.ingest.consumer import STEPS, EventConsumer, Queues
from magpie.ingest.parking_queue import ParkingQueue
from magpie.probe.consumer import ProbeConsumer
from magpie.probe.judge import Judge
from magpie.probe.queue_sink import QueueSink
from magpie.probe.sampling import Sampler
from magpie.rpc import native_server
from magpie.rpc.auth import Authenticator
from magpie.rpc.http_app import HttpApp
from magpie.rpc.lambda_channel import LambdaChannel
from magpie.rpc.lambda_server import LambdaServer
from magpie.rpc.local_channel import LocalChannel
from magpie.rpc.registry import Observer, ServicerRegistry
from magpie.services.bundle_search import BundleSearch
from magpie.services.by_bundle import (
    ByBundle,
    DetectionByBundle,
    DuplicatesByBundle,
    EmbeddingByBundle,
    RankingConfigByBundle,
    RerankingByBundle,
)
from magpie.services.catalog import CatalogServicer
from magpie.services.detection import DetectionServicer
from magpie.services.duplicates import DuplicateServicer
from magpie.services.embedding import EmbeddingServicer
from magpie.services.ranking_configs import RankingConfigServicer
from magpie.services.reranking import RerankingServicer
from magpie.services.search import SearchServicer
from magpie.services.stages import Stages
from magpie.services.visual_search import VisualSearchServicer
from magpie.settings import Settings
from magpie.store.attribute_schemas import AttributeSchemas
from magpie.store.catalogue import Catalogue
from magpie.store.compaction_leases import CompactionLeases
from magpie.store.crops import RedisCropStore
from magpie.store.customers import Customers
from magpie.store.pages import Pages
from magpie.store.probe_results import ProbeResults
from magpie.store.ranking_configs import RankingConfigs
from magpie.store.redis_connection import connect
from magpie.store.serving import Serving
from magpie.store.snapshots import Snapshots
from magpie.store.uploads import Uploads
from magpie.telemetry import CompactionMetrics, ProbeMetrics, Telemetry
from magpie.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from magpie.v1.detection_pb2_grpc import DetectionServiceStub, add_DetectionServiceServicer_to_server
from magpie.v1.duplicates_pb2_grpc import add_DuplicateServiceServicer_to_server
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
    """The parts of one process, each made when it is first asked for.

    `observe` gives what wraps every call of a service, by its name.
    """

    def __init__(
        self, settings: Settings, observe: Callable[[str], Observer] = lambda name: Telemetry(name).call
    ) -> None:
        self.settings = settings
        self._observe = observe

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
    def attribute_schemas(self) -> AttributeSchemas:
        """What each customer's filters can name."""
        return AttributeSchemas(self.catalogue)

    @cached_property
    def engine(self) -> Engine:
        """Nearest neighbours."""
        if self.settings.engine == "redis":
            return self.redis_engine
        return CompactEngine(self.catalogue, self.snapshots)

    @cached_property
    def snapshots(self) -> Snapshots:
        """Of the indexes, in the bucket and on the local disk."""
        return Snapshots(self.s3, self.settings.bucket, self.settings.cache)

    @cached_property
    def archived_objects(self) -> ArchivedObjects:
        """What the catalogue let go of."""
        return ArchivedObjects(self.snapshots)

    @cached_property
    def stored_vectors(self) -> CatalogueVectors:
        """The vectors of a product."""
        return CatalogueVectors(self.catalogue, self.archived_objects)

    @cached_property
    def hash_models(self) -> Mapping[str, HashModel]:
        """Bundle id -> what codes its objects. Indexes of a bundle that has none are not compacted.

        Nor is anything while the redis engine is in use, which wants the vectors as they are.
        """
        if self.settings.engine == "redis":
            return {}
        return {id_: model for id_, models in self.models.items() if (model := models.hash_model) is not None}

    @cached_property
    def redis_engine(self) -> RedisEngine:
        """The one that a server's own search makes, in use or not."""
        vector_index = VectorIndex(self.settings.search_index)
        server = SearchServer(self.settings.search_redis_url, vector_index)
        return RedisEngine(self.catalogue, server, self.archived_objects)

    @cached_property
    def exact_engine(self) -> Engine:
        """What the recall probe holds to be the truth."""
        return CompactEngine(self.catalogue, self.snapshots, shortlist=None)

    @cached_property
    def sampler(self) -> Sampler | None:
        """Takes searches for the recall probe, where it has a queue."""
        if not (self.settings.probe_queue_url and self.settings.probe_rate):
            return None
        # One attempt: it is a sample, and the thread that sends is wanted for the next one.
        brief = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})
        sink = QueueSink(
            lambda: boto3.client("sqs", config=brief), self.settings.probe_queue_url, ProbeMetrics().lost
        )
        return Sampler(self.settings.probe_rate, sink)

    @cached_property
    def judge(self) -> Judge:
        """Compares answers with the exact ones."""
        return Judge(self.exact_engine, self.catalogue)

    @cached_property
    def probe_results(self) -> ProbeResults:
        """What the recall probe has found lately."""
        return ProbeResults(self.redis)

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
            policy = models.query_policy
            return DetectionServicer(models.detector, kept, models.crop, self.uploads, query_policy=policy)

        return DetectionByBundle(self._by_bundle(make), self.serving)

    def _embedding(self, crops: ByBundle[CropStore]) -> EmbeddingByBundle:
        def make(models: BundleModels) -> EmbeddingServicer:
            id_, policy = models.bundle.id, models.query_policy
            return EmbeddingServicer(models.embedder, crops.of(id_), self.uploads, id_, query_policy=policy)

        return EmbeddingByBundle(self._by_bundle(make))

    def _search(self) -> SearchServicer:
        return SearchServicer(self.engine, self.catalogue, self.stored_vectors, self.sampler)

    def _reranking(self) -> RerankingByBundle:
        _ = self.first.calibration, self.first.hubness  # what does not fit keeps the process from starting

        def make(models: BundleModels) -> RerankingServicer:
            return RerankingServicer(models.spaces, models.calibration, models.hubness)

        return RerankingByBundle(self._by_bundle(make))

    @cached_property
    def stages(self) -> Stages:
        """In this process, or in functions of their own."""
        if self.settings.stages == "lambda":
            return self._stages_of(self._function_channel)
        registry = ServicerRegistry(self._observe("stages"))
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
        search = BundleSearch(self.stages, self.ranking_configs)
        # The redis engine reads from snapshots what the catalogue let go of: both have a part of the index.
        redis_engine = [self.redis_engine] if self.settings.engine == "redis" else []
        return ChangeOverOperator(
            self.change_overs,
            self.catalogue,
            self.uploads,
            search,
            self.models,
            [self.snapshots, *redis_engine],
            CompactionLeases(self.redis),
        )

    # --- Servers -------------------------------------------------------------------------------------------

    @cached_property
    def visual_search(self) -> VisualSearchServicer:
        """The main job."""
        models = self._by_bundle(lambda models: models)
        return VisualSearchServicer(
            self.stages,
            self.ranking_configs,
            self.attribute_schemas,
            self.uploads,
            Pages(self.redis),
            self.serving,
            lambda bundle: models.of(bundle).spaces,
        )

    @cached_property
    def public_registry(self) -> ServicerRegistry:
        """The services that customers call."""
        registry = ServicerRegistry(self._observe("api"))
        catalog = CatalogServicer(self.catalogue, self.uploads, self.bundle.id)
        configs = RankingConfigByBundle(self._by_bundle(self._configs_of), self.serving)
        duplicates = DuplicatesByBundle(self._by_bundle(self._duplicates_of), self.serving)
        add_VisualSearchServiceServicer_to_server(self.visual_search, registry.server)
        add_DuplicateServiceServicer_to_server(duplicates, registry.server)
        add_CatalogServiceServicer_to_server(catalog, registry.server)
        add_RankingConfigServiceServicer_to_server(configs, registry.server)
        return registry

    def _configs_of(self, models: BundleModels) -> RankingConfigServicer:
        return RankingConfigServicer(
            self.ranking_configs,
            self.attribute_schemas,
            models.spaces,
            calibrated=models.calibration is not None,
            bundle=models.bundle.id,
        )

    def _duplicates_of(self, models: BundleModels) -> DuplicateServicer:
        return DuplicateServicer(
            self.catalogue,
            self.uploads,
            self.stages.search,
            models.bundle.id,
            models.spaces,
            models.calibration,
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

    @cached_property
    def compaction(self) -> CompactionRound:
        """Of functions/compaction."""
        return CompactionRound(
            self.catalogue,
            self.snapshots,
            CompactionLeases(self.redis),
            self.hash_models,
            Thresholds(self.settings.compact_changes, self.settings.compact_seconds),
            CompactionMetrics(),
        )

    @cache  # noqa: B019
    def probe(self) -> ProbeConsumer:
        """Of functions/probe."""
        parking = ParkingQueue(self.sqs, self.settings.parking_queue_url, self.settings.max_receives)
        return ProbeConsumer(self.judge, self.probe_results, ProbeMetrics(), parking)

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
        registry = ServicerRegistry(self._observe(stage))
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
