"""VisualSearchService: one photo through the four stages.

The stages are generated stubs; whether they run in this process or in functions of their own is the channel's
affair.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from magpie.errors import InvalidArgument, NotFound
from magpie.geometry import Box
from magpie.index.attribute_schema import AttributeSchema
from magpie.index.filter import parse
from magpie.index.filter_check import check_filter, check_name, check_text_name
from magpie.ranking.facets import MAX_FACETS
from magpie.rpc.context import CallContext
from magpie.rpc.status import errors_from_rpc
from magpie.services.detection import MAX_OBJECTS
from magpie.v1 import visual_search_pb2, visual_search_pb2_grpc
from magpie.v1.detection_pb2 import DetectRequest, DetectResponse
from magpie.v1.detection_pb2_grpc import DetectionServiceStub
from magpie.v1.embedding_pb2 import EmbedRequest, EmbedResponse
from magpie.v1.embedding_pb2_grpc import EmbeddingServiceStub
from magpie.v1.image_pb2 import Image
from magpie.v1.ranking_config_pb2 import Fusion, RankingConfig
from magpie.v1.reranking_pb2 import RerankRequest, RerankResponse
from magpie.v1.reranking_pb2_grpc import RerankingServiceStub
from magpie.v1.search_pb2 import FindCandidatesRequest, FindCandidatesResponse
from magpie.v1.search_pb2_grpc import SearchServiceStub

DEFAULT_LIMIT = 10
MAX_LIMIT = 100
DEFAULT_OBJECTS = 5
MAX_PHOTO_BYTES = 4_000_000  # base64 of it still fits the 6 MB of a synchronous invocation


@dataclass(frozen=True)
class Stages:
    """Stubs of the four stages."""

    detection: DetectionServiceStub
    embedding: EmbeddingServiceStub
    search: SearchServiceStub
    reranking: RerankingServiceStub


class CurrentConfig(Protocol):
    """Where the ranking config in force comes from."""

    def current(self, customer: str) -> RankingConfig:
        """The customer's config, or the default."""


class Schemas(Protocol):
    """Where a customer's names and types come from."""

    def current(self, customer: str) -> AttributeSchema:
        """As it was at most a second ago, as far as it can be known."""

    def newest(self, customer: str) -> AttributeSchema:
        """As it is now."""


class ImageAddresses(Protocol):
    """Where pictures of the catalogue can be fetched."""

    def image_url(self, customer: str, product_id: str, sha256: str) -> str:
        """A signed address, good for some minutes."""


class VisualSearchServicer(visual_search_pb2_grpc.VisualSearchServiceServicer):
    """Runs detection, embedding, search and reranking, one after the other."""

    def __init__(
        self, stages: Stages, configs: CurrentConfig, schemas: Schemas, addresses: ImageAddresses
    ) -> None:
        self._stages = stages
        self._configs = configs
        self._schemas = schemas
        self._addresses = addresses

    def Search(  # type: ignore[override]  # our context on every transport
        self, request: visual_search_pb2.SearchRequest, context: CallContext
    ) -> visual_search_pb2.SearchResponse:
        customer = context.require_customer()
        _check(request)
        self._check_names(request, customer)
        config = self._configs.current(customer)
        clock = _Stopwatch()
        with clock.stage("detection"):
            detected = self._detect(request, context)
        with clock.stage("embedding"):
            embedded = self._embed(request.image, detected, context)
        with clock.stage("search"):
            found = self._find(request.filter, config, embedded, context)
        with clock.stage("reranking"):
            ranked = self._rerank(request, config, found, context)
        response = visual_search_pb2.SearchResponse(
            query_id=f"q_{uuid.uuid4().hex}",
            objects=[
                visual_search_pb2.ObjectHits(object=object_, hits=hit_list.hits, facets=hit_list.facets)
                for object_, hit_list in zip(detected.objects, ranked.results, strict=True)
            ],
            ranking_config_version=config.version,
            bundle=embedded.bundle,
            stale=found.stale,
        )
        if request.include_image_urls:
            for object_hits in response.objects:
                for hit in object_hits.hits:
                    hit.image_url = self._addresses.image_url(customer, hit.product_id, hit.image_sha256)
        response.timings_ms.update(clock.milliseconds())
        return response

    def _check_names(self, request: visual_search_pb2.SearchRequest, customer: str) -> None:
        """What the caller names must be there. A product may have brought it within the last second."""
        if not (request.filter or request.facets or request.group_by):
            return
        try:
            _check_against(request, self._schemas.current(customer))
        except InvalidArgument:
            _check_against(request, self._schemas.newest(customer))

    def _detect(self, request: visual_search_pb2.SearchRequest, context: CallContext) -> DetectResponse:
        detect = DetectRequest(image=request.image, max_objects=request.max_objects or DEFAULT_OBJECTS)
        if request.HasField("box"):
            detect.box.CopyFrom(request.box)
        with errors_from_rpc():
            return self._stages.detection.Detect(
                detect, timeout=context.remaining(), metadata=context.outgoing()
            )

    def _embed(self, image: Image, detected: DetectResponse, context: CallContext) -> EmbedResponse:
        """By the crops that detection kept; with the photo itself only if those are gone already."""
        request = EmbedRequest(image=detected.image, objects=detected.objects)
        try:
            with errors_from_rpc():
                return self._stages.embedding.Embed(
                    request, timeout=context.remaining(), metadata=context.outgoing()
                )
        except NotFound:
            request.image.CopyFrom(image)
            with errors_from_rpc():
                return self._stages.embedding.Embed(
                    request, timeout=context.remaining(), metadata=context.outgoing()
                )

    def _find(
        self, asked: str, config: RankingConfig, embedded: EmbedResponse, context: CallContext
    ) -> FindCandidatesResponse:
        """A weighted fusion finds its candidates by the weights; ranks want the nearest of every space."""
        request = FindCandidatesRequest(
            queries=embedded.objects,
            bundle=embedded.bundle,
            filters=[condition for condition in (asked, config.filter) if condition.strip()],
            weights=config.fusion.weights if config.fusion.method != Fusion.METHOD_RRF else None,
        )
        with errors_from_rpc():
            return self._stages.search.FindCandidates(
                request, timeout=context.remaining(), metadata=context.outgoing()
            )

    def _rerank(
        self,
        request: visual_search_pb2.SearchRequest,
        config: RankingConfig,
        found: FindCandidatesResponse,
        context: CallContext,
    ) -> RerankResponse:
        rerank = RerankRequest(
            config=config,
            results=found.results,
            products=found.products,
            limit=request.limit or DEFAULT_LIMIT,
            explain=request.explain,
            facets=request.facets,
            group_by=request.group_by,
        )
        with errors_from_rpc():
            return self._stages.reranking.Rerank(
                rerank, timeout=context.remaining(), metadata=context.outgoing()
            )


class _Stopwatch:
    """Milliseconds of each stage and of the whole."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._stages[name] = (time.perf_counter() - start) * 1000

    def milliseconds(self) -> dict[str, float]:
        return {**self._stages, "total": (time.perf_counter() - self._start) * 1000}


def _check(request: visual_search_pb2.SearchRequest) -> None:
    if request.image.WhichOneof("source") is None:
        raise InvalidArgument("image", "needs `content` (the file's bytes) or `upload_key`")
    if len(request.image.content) > MAX_PHOTO_BYTES:
        raise InvalidArgument(
            "image.content",
            f"has {len(request.image.content)} bytes, at most {MAX_PHOTO_BYTES}: shrink the photo "
            "(1024 px do), or upload it with CatalogService.CreateUpload and send its upload_key",
        )
    if request.HasField("box"):
        box = request.box
        Box.checked(box.x0, box.y0, box.x1, box.y1)
    if not 0 <= request.limit <= MAX_LIMIT:
        raise InvalidArgument("limit", f"must lie in [1, {MAX_LIMIT}], got {request.limit}")
    if not 0 <= request.max_objects <= MAX_OBJECTS:
        raise InvalidArgument("max_objects", f"must lie in [1, {MAX_OBJECTS}], got {request.max_objects}")
    if len(request.facets) > MAX_FACETS:
        raise InvalidArgument("facets", f"at most {MAX_FACETS}, got {len(request.facets)}")
    for row, name in enumerate(request.facets):
        if name in request.facets[:row]:
            raise InvalidArgument(f"facets[{row}]", f"`{name:.60}` stands there twice: each name once")
    if request.filter:
        parse(request.filter)  # here, so that the position in the message is the caller's


def _check_against(request: visual_search_pb2.SearchRequest, schema: AttributeSchema) -> None:
    """Raises InvalidArgument for the first name that the schema has not, or has of another type."""
    if request.filter:
        check_filter(request.filter, schema)
    for row, name in enumerate(request.facets):
        check_name(name, schema, f"facets[{row}]")
    if request.group_by:
        check_text_name(request.group_by, schema, "group_by")
