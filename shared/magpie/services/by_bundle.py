"""One servicer for each bundle that a process knows, and who chooses among them.

During a change-over a process has two bundles. Requests and events name the one that they mean; what a
customer sends from outside goes to the one that serves that customer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from magpie.errors import FailedPrecondition
from magpie.rpc.context import CallContext
from magpie.services.detection import DetectionServicer
from magpie.services.duplicates import DuplicateServicer
from magpie.services.embedding import EmbeddingServicer
from magpie.services.photo_source import customer_of
from magpie.services.ranking_configs import RankingConfigServicer
from magpie.services.reranking import RerankingServicer
from magpie.v1 import (
    detection_pb2,
    detection_pb2_grpc,
    duplicates_pb2,
    duplicates_pb2_grpc,
    embedding_pb2,
    embedding_pb2_grpc,
    events_pb2,
    ranking_config_pb2,
    ranking_config_pb2_grpc,
    reranking_pb2,
    reranking_pb2_grpc,
)

Part = TypeVar("Part")


class ServingBundle(Protocol):
    """Which bundle answers a customer's searches."""

    def current(self, customer: str) -> str:
        """Its id, `name@version`; empty: the first one of the process."""


class ByBundle(Generic[Part]):
    """A part of each bundle in `known` (`name@version`), made by `make` when it is first asked for."""

    def __init__(self, known: Iterable[str], make: Callable[[str], Part]) -> None:
        self._known = tuple(known)
        self._make = make
        self._parts: dict[str, Part] = {}
        self._lock = threading.Lock()

    def of(self, bundle: str) -> Part:
        """That bundle's; empty: the first bundle's. Raises FailedPrecondition if it is not known here."""
        bundle = bundle or self._known[0]
        part = self._parts.get(bundle)
        if part is not None:
            return part
        if bundle not in self._known:
            raise FailedPrecondition(
                f"bundle: {bundle} is asked for, this process has {' and '.join(self._known)}: "
                "set MAGPIE_BUNDLE or MAGPIE_NEXT_BUNDLE to its folder"
            )
        with self._lock:
            if bundle not in self._parts:
                self._parts[bundle] = self._make(bundle)
            return self._parts[bundle]


class DetectionByBundle(detection_pb2_grpc.DetectionServiceServicer):
    """Detection with the bundle that the request names. An upload gets its bundle here."""

    def __init__(self, servicers: ByBundle[DetectionServicer], serving: ServingBundle) -> None:
        self._servicers = servicers
        self._serving = serving

    def Detect(  # type: ignore[override]  # our context on every transport
        self, request: detection_pb2.DetectRequest, context: CallContext
    ) -> detection_pb2.DetectResponse:
        return self._servicers.of(request.bundle).Detect(request, context)

    def DetectUploaded(  # type: ignore[override]
        self, request: events_pb2.ImageUploaded, context: CallContext
    ) -> events_pb2.ObjectsDetected:
        uploaded = events_pb2.ImageUploaded()
        uploaded.CopyFrom(request)
        uploaded.image.bundle = uploaded.image.bundle or self._serving.current(
            customer_of(request.image, context)
        )
        return self._servicers.of(uploaded.image.bundle).DetectUploaded(uploaded, context)


class EmbeddingByBundle(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Embedding with the bundle that detected."""

    def __init__(self, servicers: ByBundle[EmbeddingServicer]) -> None:
        self._servicers = servicers

    def Embed(  # type: ignore[override]
        self, request: embedding_pb2.EmbedRequest, context: CallContext
    ) -> embedding_pb2.EmbedResponse:
        return self._servicers.of(request.bundle).Embed(request, context)

    def EmbedDetected(  # type: ignore[override]
        self, request: events_pb2.ObjectsDetected, context: CallContext
    ) -> events_pb2.ObjectsEmbedded:
        return self._servicers.of(request.image.bundle).EmbedDetected(request, context)


class RerankingByBundle(reranking_pb2_grpc.RerankingServiceServicer):
    """Ranking with the spaces and the calibration of the bundle that embedded."""

    def __init__(self, servicers: ByBundle[RerankingServicer]) -> None:
        self._servicers = servicers

    def Rerank(  # type: ignore[override]
        self, request: reranking_pb2.RerankRequest, context: CallContext
    ) -> reranking_pb2.RerankResponse:
        return self._servicers.of(request.bundle).Rerank(request, context)


class DuplicatesByBundle(duplicates_pb2_grpc.DuplicateServiceServicer):
    """What a catalogue has twice, in the index of the bundle that serves the customer."""

    def __init__(self, servicers: ByBundle[DuplicateServicer], serving: ServingBundle) -> None:
        self._servicers = servicers
        self._serving = serving

    def ListFingerprints(  # type: ignore[override]  # our context on every transport
        self, request: duplicates_pb2.ListFingerprintsRequest, context: CallContext
    ) -> duplicates_pb2.ListFingerprintsResponse:
        return self._of(context).ListFingerprints(request, context)

    def FindSameItems(  # type: ignore[override]
        self, request: duplicates_pb2.FindSameItemsRequest, context: CallContext
    ) -> duplicates_pb2.FindSameItemsResponse:
        return self._of(context).FindSameItems(request, context)

    def DescribeImages(  # type: ignore[override]
        self, request: duplicates_pb2.DescribeImagesRequest, context: CallContext
    ) -> duplicates_pb2.DescribeImagesResponse:
        return self._of(context).DescribeImages(request, context)

    def _of(self, context: CallContext) -> DuplicateServicer:
        return self._servicers.of(self._serving.current(context.require_customer()))


class RankingConfigByBundle(ranking_config_pb2_grpc.RankingConfigServiceServicer):
    """Configs are checked against the bundle that serves the customer."""

    def __init__(self, servicers: ByBundle[RankingConfigServicer], serving: ServingBundle) -> None:
        self._servicers = servicers
        self._serving = serving

    def GetRankingConfig(  # type: ignore[override]
        self, request: ranking_config_pb2.GetRankingConfigRequest, context: CallContext
    ) -> ranking_config_pb2.GetRankingConfigResponse:
        return self._of(context).GetRankingConfig(request, context)

    def PutRankingConfig(  # type: ignore[override]
        self, request: ranking_config_pb2.PutRankingConfigRequest, context: CallContext
    ) -> ranking_config_pb2.PutRankingConfigResponse:
        return self._of(context).PutRankingConfig(request, context)

    def _of(self, context: CallContext) -> RankingConfigServicer:
        return self._servicers.of(self._serving.current(context.require_customer()))
