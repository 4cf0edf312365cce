"""Search with a bundle of the operator's choice, served or not, and without the query's own picture."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Protocol

from magpie.ranking.config import validate
from magpie.rpc.context import CallContext
from magpie.services.page_turner import PageTurner
from magpie.services.query_objects import QueryObjectsReader
from magpie.services.stages import Stages
from magpie.services.stopwatch import Stopwatch
from magpie.services.visual_search import CurrentConfig, first_page
from magpie.v1.image_pb2 import Image
from magpie.v1.search_pb2 import CandidateList, FindCandidatesRequest, FindCandidatesResponse
from magpie.v1.visual_search_pb2 import SearchRequest

DEPTH = 10  # hits an object


class Fitted(Protocol):
    """What a bundle can rank by."""

    @property
    def spaces(self) -> Collection[str]:
        """Names of its embedding spaces."""

    @property
    def calibration(self) -> object | None:
        """Whether it can tell probabilities."""


class BundleSearch:
    """The public search itself, told which bundle serves."""

    def __init__(self, stages: Stages, configs: CurrentConfig) -> None:
        self._stages = stages
        self._configs = configs

    def ranking(
        self, customer: str, bundle: str, photo: Image, right: Collection[str], leave_out: str = ""
    ) -> list[str]:
        """Product ids, best first, of all objects in the photo together.

        A hit that stands for a product of `right` counts as that product. The stored picture `leave_out`, a
        SHA-256, is not found. Raises what a search raises.
        """
        leaving_out: Any = _LeavingOut(self._stages.search, leave_out)
        stages = replace(self._stages, search=leaving_out)
        request, clock = SearchRequest(image=photo, limit=DEPTH), Stopwatch()
        context = CallContext.of_call((), None, customer)
        sought = QueryObjectsReader(stages).read(request, bundle, {}, context, clock)
        page = first_page(request, self._configs.current(customer, bundle), sought)
        best: dict[str, float] = {}
        for hit_list in PageTurner(stages).turn(page, context, clock).hit_lists:
            for hit in hit_list.hits:
                named = {hit.product_id, *hit.stands_for}
                name = next((id_ for id_ in right if id_ in named), hit.product_id)
                best[name] = max(best.get(name, hit.score), hit.score)
        return sorted(best, key=lambda product_id: -best[product_id])

    def check_config(self, customer: str, bundle: str, fitted: Fitted) -> None:
        """Raises InvalidArgument or FailedPrecondition if the customer's config does not fit a bundle."""
        config = self._configs.current(customer, bundle)
        validate(config, fitted.spaces, calibrated=fitted.calibration is not None)


class _LeavingOut:
    """SearchService's stub, which does not find one picture."""

    def __init__(self, search: Any, sha256: str) -> None:
        self._search = search
        self._sha256 = sha256

    def FindCandidates(self, request: FindCandidatesRequest, **call: Any) -> FindCandidatesResponse:
        found: FindCandidatesResponse = self._search.FindCandidates(request, **call)
        if not self._sha256:
            return found
        return FindCandidatesResponse(
            results=[
                CandidateList(candidates=[c for c in result.candidates if c.image_sha256 != self._sha256])
                for result in found.results
            ],
            products=found.products,
            stale=found.stale,
        )
