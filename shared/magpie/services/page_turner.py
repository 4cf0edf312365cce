"""One page of hits: find candidates, rank them, and say where the next page goes on."""

from __future__ import annotations

from dataclasses import dataclass

from magpie.rpc.context import CallContext
from magpie.rpc.status import errors_from_rpc
from magpie.services.stages import Stages
from magpie.services.stopwatch import Stopwatch
from magpie.v1.page_pb2 import Page
from magpie.v1.ranking_config_pb2 import Fusion
from magpie.v1.reranking_pb2 import HitList, RerankRequest, RerankResponse
from magpie.v1.search_pb2 import CandidateList, FindCandidatesRequest, FindCandidatesResponse

DEFAULT_LIMIT = 10
FEWEST_CANDIDATES = 100
CANDIDATES_A_HIT = 3  # a catalogue picture has up to two boxes and its whole
MOST_CANDIDATES = 1000  # of one query
MOST_TOGETHER = 3000  # of all queries: what comes and goes between stages still fits an invocation
_WIDER = 4  # times as many candidates, where they do not fill a page


@dataclass(frozen=True)
class TurnedPage:
    """The hits of each query, best first, and what the next page begins from, None where there is none."""

    hit_lists: list[HitList]
    following: Page | None
    stale: bool  # the newest writes to the catalogue may be missing


class PageTurner:
    """Asks the stages `search` and `reranking`.

    Every page is ranked anew, so that it shows prices and stock as they are now; what earlier pages have
    shown takes part in the ranking and is then left out.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    def turn(self, page: Page, context: CallContext, clock: Stopwatch) -> TurnedPage:
        """The page's hits. Takes more candidates where those do not fill it and more can be had."""
        limit = page.request.limit or DEFAULT_LIMIT
        most = max(FEWEST_CANDIDATES, min(MOST_CANDIDATES, MOST_TOGETHER // len(page.queries)))
        deepest = max((len(shown.product_ids) for shown in page.shown), default=0)
        count = max(page.candidates, FEWEST_CANDIDATES, CANDIDATES_A_HIT * (deepest + limit))
        while True:
            count = min(count, most)
            with clock.stage("search"):
                found = self._find(page, count, context)
            with clock.stage("reranking"):
                ranked = self._rerank(page, limit, found, context)
            goes_on = [
                count < most and _goes_on(candidates, hits, count)
                for candidates, hits in zip(found.results, ranked.results, strict=True)
            ]
            short = [len(hits.hits) < limit for hits in ranked.results]
            if not any(of_query and wider for of_query, wider in zip(short, goes_on, strict=True)):
                break
            count *= _WIDER
        more = any(goes_on) or any(hits.more for hits in ranked.results)
        following = _following(page, ranked, count) if more else None
        return TurnedPage(list(ranked.results), following, found.stale)

    def _find(self, page: Page, count: int, context: CallContext) -> FindCandidatesResponse:
        """A weighted fusion finds its candidates by the weights; ranks want the nearest of every space."""
        fusion = page.config.fusion
        request = FindCandidatesRequest(
            queries=page.queries,
            bundle=page.bundle,
            filters=page.filters,
            limit_per_space=count,
            weights=fusion.weights if fusion.method != Fusion.METHOD_RRF else None,
        )
        with errors_from_rpc():
            return self._stages.search.FindCandidates(
                request, timeout=context.remaining(), metadata=context.outgoing()
            )

    def _rerank(
        self, page: Page, limit: int, found: FindCandidatesResponse, context: CallContext
    ) -> RerankResponse:
        request = RerankRequest(
            config=page.config,
            results=found.results,
            products=found.products,
            limit=limit,
            explain=page.request.explain,
            shown=page.shown,
            facets=page.request.facets,
            group_by=page.request.group_by,
            bundle=page.bundle,
        )
        with errors_from_rpc():
            return self._stages.reranking.Rerank(
                request, timeout=context.remaining(), metadata=context.outgoing()
            )


def _goes_on(candidates: CandidateList, hits: HitList, count: int) -> bool:
    """Whether farther objects may bring more hits: there are some, and no cut-off has ended the list yet."""
    return len(candidates.candidates) >= count and not hits.cut_off


def _following(page: Page, ranked: RerankResponse, count: int) -> Page:
    following = Page()
    following.CopyFrom(page)
    following.candidates = count
    following.request.ClearField("facets")  # the first page has them
    for row, hits in enumerate(ranked.results):
        shown = following.shown[row] if page.shown else following.shown.add()
        shown.product_ids.extend(_named(hits))
    return following


def _named(hits: HitList) -> list[str]:
    return [id_ for hit in hits.hits for id_ in (hit.product_id, *hit.stands_for)]
