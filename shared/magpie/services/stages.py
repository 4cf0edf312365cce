"""The four stages that the public search calls."""

from __future__ import annotations

from dataclasses import dataclass

from magpie.v1.detection_pb2_grpc import DetectionServiceStub
from magpie.v1.embedding_pb2_grpc import EmbeddingServiceStub
from magpie.v1.reranking_pb2_grpc import RerankingServiceStub
from magpie.v1.search_pb2_grpc import SearchServiceStub


@dataclass(frozen=True)
class Stages:
    """Generated stubs: whether they run in this process or in functions of their own is the channel's."""

    detection: DetectionServiceStub
    embedding: EmbeddingServiceStub
    search: SearchServiceStub
    reranking: RerankingServiceStub
