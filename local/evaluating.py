"""How good and how fast search is on queries with known answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from local.client import CallFailed, Client
from magpie.evaluation.retrieval import ndcg_at_k, recall_at_k, reciprocal_rank
from magpie.geometry import WHOLE_IMAGE
from magpie.tables.queries import Query
from magpie.v1.image_pb2 import Box
from magpie.v1.visual_search_pb2 import SearchRequest, SearchResponse

DEPTH = 10  # hits an object; no metric looks further
STAGES = ("total", "detection", "embedding", "search", "reranking")
PERCENTILES = (50, 95, 99)


@dataclass
class Evaluation:
    """One number a query in each list; a stage's list lacks the queries that failed."""

    rankings: list[list[str]] = field(default_factory=list)
    latencies_ms: dict[str, list[float]] = field(default_factory=lambda: {"total": []})
    failed: dict[str, str] = field(default_factory=dict)  # photo -> reason; it has no hits


def merged_ranking(response: SearchResponse) -> list[str]:
    """One ranking of a photo: the hits of all its objects, each product at its best score."""
    best: dict[str, float] = {}
    for object_hits in response.objects:
        for hit in object_hits.hits:
            best[hit.product_id] = max(best.get(hit.product_id, -np.inf), hit.score)
    return sorted(best, key=lambda product_id: -best[product_id])


def search_all(
    client: Client, queries: Sequence[Query], whole_image: bool, progress: Callable[[], None]
) -> Evaluation:
    """Search for every query, one by one. A photo that is refused has no hits; other errors end it."""
    evaluation = Evaluation()
    for query in queries:
        request = SearchRequest(limit=DEPTH, box=Box(**WHOLE_IMAGE._asdict()) if whole_image else None)
        start = time.perf_counter()
        try:
            request.image.CopyFrom(client.photo(query.path))
            response = client.call(client.visual_search.Search, request)
        except CallFailed as error:
            if error.status != "INVALID_ARGUMENT":
                raise
            evaluation.failed[str(query.path)] = str(error)
            evaluation.rankings.append([])
        else:
            evaluation.latencies_ms["total"].append((time.perf_counter() - start) * 1000)
            for stage, milliseconds in response.timings_ms.items():
                if stage != "total":  # ours is the client's
                    evaluation.latencies_ms.setdefault(stage, []).append(milliseconds)
            evaluation.rankings.append(merged_ranking(response))
        progress()
    return evaluation


def figures(queries: Sequence[Query], evaluation: Evaluation) -> dict[str, object]:
    """Means over the queries, and percentiles of the latencies."""
    pairs = list(zip(evaluation.rankings, (query.grades for query in queries), strict=True))
    relevant = [{product_id for product_id, grade in grades.items() if grade > 0} for _, grades in pairs]
    rankings = evaluation.rankings
    return {
        "queries": len(queries),
        **{
            f"recall@{k}": fmean(
                recall_at_k(r, right, k) for r, right in zip(rankings, relevant, strict=True)
            )
            for k in (1, 5, 10)
        },
        "ndcg@10": fmean(ndcg_at_k(ranking, grades, 10) for ranking, grades in pairs),
        "mrr": fmean(reciprocal_rank(*pair) for pair in zip(rankings, relevant, strict=True)),
        "latency_ms": {
            stage: {f"p{p}": round(float(np.percentile(times, p)), 2) for p in PERCENTILES}
            for stage in STAGES
            if (times := evaluation.latencies_ms.get(stage))
        },
    }
