"""VisualSearchService: a photo, a product or vectors in, ranked products out, page by page."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

from magpie.index.filter_terms import Comparison, Not
from magpie.rpc.context import CallContext
from magpie.services.by_bundle import ServingBundle
from magpie.services.named_attributes import Schemas, check_names
from magpie.services.page_turner import PageTurner
from magpie.services.query_objects import QueryObjects, QueryObjectsReader
from magpie.services.search_request import check
from magpie.services.stages import Stages
from magpie.services.stopwatch import Stopwatch
from magpie.store.pages import Pages
from magpie.v1 import visual_search_pb2, visual_search_pb2_grpc
from magpie.v1.page_pb2 import Page
from magpie.v1.ranking_config_pb2 import RankingConfig


class CurrentConfig(Protocol):
    """Where the ranking config in force comes from."""

    def current(self, customer: str, bundle: str) -> RankingConfig:
        """The customer's config, or the one that the bundle brings, or the default."""


class ImageAddresses(Protocol):
    """Where pictures of the catalogue can be fetched."""

    def image_url(self, customer: str, product_id: str, sha256: str) -> str:
        """A signed address, good for some minutes."""


class VisualSearchServicer(visual_search_pb2_grpc.VisualSearchServiceServicer):
    """Runs the stages one after the other, with the bundle that serves the customer.

    `dimensions`: bundle -> its spaces -> dimension.
    """

    def __init__(
        self,
        stages: Stages,
        configs: CurrentConfig,
        schemas: Schemas,
        addresses: ImageAddresses,
        pages: Pages,
        serving: ServingBundle,
        dimensions: Callable[[str], Mapping[str, int]],
    ) -> None:
        self._query_objects = QueryObjectsReader(stages)
        self._turner = PageTurner(stages)
        self._configs = configs
        self._schemas = schemas
        self._addresses = addresses
        self._pages = pages
        self._serving = serving
        self._dimensions = dimensions

    def Search(  # type: ignore[override]  # our context on every transport
        self, request: visual_search_pb2.SearchRequest, context: CallContext
    ) -> visual_search_pb2.SearchResponse:
        customer = context.require_customer()
        bundle = self._serving.current(customer)
        dimensions = self._dimensions(bundle)
        check(request, dimensions)
        clock = Stopwatch()
        if request.page_token:
            page = self._pages.read(customer, request.page_token)
        else:
            check_names(request, self._schemas, customer)
            config = self._configs.current(customer, bundle)
            sought = self._query_objects.read(request, bundle, dimensions, context, clock)
            page = first_page(request, config, sought)
        turned = self._turner.turn(page, context, clock)
        response = visual_search_pb2.SearchResponse(
            query_id=page.query_id,
            objects=[
                visual_search_pb2.ObjectHits(object=query.object, hits=hit_list.hits, facets=hit_list.facets)
                for query, hit_list in zip(page.queries, turned.hit_lists, strict=True)
            ],
            ranking_config_version=page.config.version,
            bundle=page.bundle,
            stale=turned.stale,
        )
        if turned.following and not turned.stale:  # stale: Redis, which keeps pages, does not answer
            response.next_page_token = self._pages.keep(customer, turned.following)
        if page.request.include_image_urls:
            for object_hits in response.objects:
                for hit in object_hits.hits:
                    hit.image_url = self._addresses.image_url(customer, hit.product_id, hit.image_sha256)
        response.timings_ms.update(clock.milliseconds())
        return response


def first_page(request: visual_search_pb2.SearchRequest, config: RankingConfig, sought: QueryObjects) -> Page:
    """Where a search begins."""
    page = Page(
        query_id=f"q_{uuid.uuid4().hex}",
        request=request,
        config=config,
        queries=sought.objects,
        bundle=sought.bundle,
        filters=[condition for condition in (request.filter, config.filter) if condition.strip()],
    )
    page.request.ClearField("image")
    page.request.ClearField("embedded")
    if request.weights:
        page.config.fusion.weights.clear()
        page.config.fusion.weights.update(request.weights)
    if sought.like is not None:
        page.filters.append(str(Not(Comparison("id", "=", sought.like.id))))
        grouped = request.group_by == "group" if request.group_by else config.group_variants
        if grouped and sought.like.group:
            page.filters.append(str(Not(Comparison("group", "=", sought.like.group))))
    return page
