"""SearchService: nearest neighbours in one customer's index, and the writes to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from magpie.errors import FailedPrecondition, InvalidArgument, NotFound
from magpie.index.engine import Engine
from magpie.index.filter import parse
from magpie.index.filter_terms import And, Filter
from magpie.index.stored_vectors import StoredVectors
from magpie.index.vectors import vectors_of
from magpie.probe.sampling import Answered, Sampler
from magpie.rpc.context import CallContext
from magpie.store.catalogue import Catalogue
from magpie.v1 import search_pb2_grpc
from magpie.v1.catalog_pb2 import ImageStatus
from magpie.v1.events_pb2 import ImageIndexed, ObjectsEmbedded
from magpie.v1.search_pb2 import (
    CandidateList,
    FindCandidatesRequest,
    FindCandidatesResponse,
    GetObjectsRequest,
    GetObjectsResponse,
)

MAX_QUERIES = 30
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_FILTERS = 10


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    """Reads through an engine, writes to the catalogue that the engine follows.

    `sampler` takes some of the searches, to be answered exactly as well later.
    """

    def __init__(
        self, engine: Engine, catalogue: Catalogue, vectors: StoredVectors, sampler: Sampler | None = None
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._vectors = vectors
        self._sampler = sampler

    def FindCandidates(  # type: ignore[override]  # our context on every transport
        self, request: FindCandidatesRequest, context: CallContext
    ) -> FindCandidatesResponse:
        customer = context.require_customer()
        if not 1 <= len(request.queries) <= MAX_QUERIES:
            raise InvalidArgument("queries", f"1 to {MAX_QUERIES} are needed, got {len(request.queries)}")
        if not 0 <= request.limit_per_space <= MAX_LIMIT:
            raise InvalidArgument(
                "limit_per_space",
                f"must be 1 to {MAX_LIMIT}, 0 for {DEFAULT_LIMIT}, got {request.limit_per_space}",
            )
        if not request.bundle:
            raise InvalidArgument("bundle", "must name the bundle whose models made the vectors")
        queries = [vectors_of(query, f"queries[{row}]") for row, query in enumerate(request.queries)]
        condition = _condition(request.filters)
        asked_at = time.time()
        found = self._engine.find(
            customer,
            request.bundle,
            queries,
            condition,
            request.limit_per_space or DEFAULT_LIMIT,
            dict(request.weights) or None,
        )
        if self._sampler is not None and not request.is_walk:
            self._sampler.consider(Answered(customer, request, found, asked_at, context.trace_id))
        return FindCandidatesResponse(
            results=[CandidateList(candidates=candidates) for candidates in found.results],
            products=found.products,
            stale=found.stale,
        )

    def GetObjects(  # type: ignore[override]
        self, request: GetObjectsRequest, context: CallContext
    ) -> GetObjectsResponse:
        customer = context.require_customer()
        for field in ("product_id", "bundle"):
            if not getattr(request, field):
                raise InvalidArgument(field, "must not be empty")
        product = self._catalogue.products(customer, [request.product_id]).get(request.product_id)
        if product is None:
            raise NotFound(f"product_id: there is no product {request.product_id!r}")
        objects = self._vectors.of_product(customer, request.bundle, request.product_id)
        if not objects:
            states = self._catalogue.states(customer, [request.product_id])
            raise FailedPrecondition(
                f"product_id: {request.product_id!r} has no picture in the index of {request.bundle}: "
                f"{_told(states)}"
            )
        return GetObjectsResponse(product=product, objects=objects)

    def IndexEmbedded(  # type: ignore[override]
        self, request: ObjectsEmbedded, context: CallContext
    ) -> ImageIndexed:
        if context.customer not in ("", request.image.customer):
            raise InvalidArgument(
                "image.customer", f"is {request.image.customer}, but the call is of {context.customer}"
            )
        _check_event(request)
        return ImageIndexed(image=request.image, objects=self._catalogue.write_objects(request))


def _condition(filters: Sequence[str]) -> Filter | None:
    """All of them together. Parsed one by one, so that each may be as long as a filter may be."""
    if len(filters) > MAX_FILTERS:
        raise InvalidArgument("filters", f"at most {MAX_FILTERS}, got {len(filters)}")
    conditions = tuple(parse(text) for text in filters if text.strip())
    return And(conditions) if len(conditions) > 1 else next(iter(conditions), None)


def _told(states: Sequence[ImageStatus]) -> str:
    """How far a product's pictures are, for people: `2 awaiting upload, 1 failed (is truncated)`."""
    if not states:
        return "it lists no pictures: upsert it with some"
    counts = Counter(
        ImageStatus.State.Name(status.state).removeprefix("STATE_").replace("_", " ").lower()
        + (f" ({status.reason})" if status.reason else "")
        + (" under another bundle" if status.state == ImageStatus.STATE_INDEXED else "")
        for status in states
    )
    return "its pictures are " + ", ".join(f"{count} {state}" for state, count in counts.items())


def _check_event(event: ObjectsEmbedded) -> None:
    """Raises InvalidArgument unless every object has the same spaces and dimensions."""
    for field in ("event_id", "customer", "product_id", "sha256"):
        if not getattr(event.image, field):
            raise InvalidArgument(f"image.{field}", "must not be empty")
    if not event.bundle:
        raise InvalidArgument("bundle", "must name the bundle whose models made the vectors")
    if not event.objects:
        raise InvalidArgument("objects", "at least one is needed")
    sizes = [
        {space: len(vector) for space, vector in vectors_of(embedded, f"objects[{row}]").items()}
        for row, embedded in enumerate(event.objects)
    ]
    for row, size in enumerate(sizes):
        if size != sizes[0]:
            raise InvalidArgument(
                f"objects[{row}].vectors", f"dimensions {size} differ from those of objects[0], {sizes[0]}"
            )
