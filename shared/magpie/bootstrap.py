"""The one composition root: what is connected to what.

Everything is built on first use and nothing at import: a function that only ranks never opens Redis, and a
process that is restored from a snapshot makes its connections anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Any

import boto3
import grpc
import redis
from apig_wsgi import make_lambda_handler
from aws_lambda_powertools.utilities.idempotency.persistence.cache import CachePersistenceLayer
from botocore.config import Config

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
from magpie.ranking.bundled_configs import bundled_configs
from magpie.ranking.calibration import Calibration
from magpie.rpc import native_server
from magpie.rpc.auth import Authenticator
from magpie.rpc.http_app import HttpApp
from magpie.rpc.lambda_channel import LambdaChannel
from magpie.rpc.lambda_server import LambdaServer
from magpie.rpc.local_channel import LocalChannel
from magpie.rpc.registry import Observer, ServicerRegistry
from magpie.services.catalog import CatalogServicer
from magpie.services.detection import DetectionServicer
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
from magpie.store.snapshots import Snapshots
from magpie.store.uploads import Uploads
from magpie.telemetry import CompactionMetrics, ProbeMetrics, Telemetry
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
        bundle = self.bundle
        if bundle.hash is None or self.settings.engine == "redis":
            return {}
        return {bundle.id: HashModel.load(bundle.folder, bundle.hash, bundle.embedder_card.sha256)}

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
        return SearchServicer(self.engine, self.catalogue, self.stored_vectors, self.sampler)

    def _reranking(self) -> RerankingServicer:
        return RerankingServicer(self.bundle.embedder_card.spaces, self.calibration)

    @cached_property
    def stages(self) -> Stages:
        """In this process, or in functions of their own."""
        if self.settings.stages == "lambda":
            return self._stages_of(self._function_channel)
        registry = ServicerRegistry(self._observe("stages"))
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
    def visual_search(self) -> VisualSearchServicer:
        """The main job."""
        return VisualSearchServicer(
            self.stages,
            self.ranking_configs,
            self.attribute_schemas,
            self.uploads,
            Pages(self.redis),
            self.bundle.id,
            self.bundle.embedder_card.spaces,
        )

    @cached_property
    def public_registry(self) -> ServicerRegistry:
        """The services that customers call."""
        registry = ServicerRegistry(self._observe("api"))
        catalog = CatalogServicer(self.catalogue, self.uploads, self.bundle.id)
        configs = RankingConfigServicer(
            self.ranking_configs,
            self.attribute_schemas,
            self.bundle.embedder_card.spaces,
            calibrated=self.calibration is not None,
        )
        add_VisualSearchServiceServicer_to_server(self.visual_search, registry.server)
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
        self.detector.load()
        self.embedder.load()

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
