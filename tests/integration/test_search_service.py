from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import redis

from magpie.errors import FilterSyntax, InvalidArgument, Unauthenticated
from magpie.index.compact import CompactEngine
from magpie.index.stored_vectors import CatalogueVectors
from magpie.rpc.context import CallContext
from magpie.services.search import SearchServicer
from magpie.store.catalogue import Catalogue
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import FindCandidatesRequest

BUNDLE = "default@1"
SHOP = CallContext(customer="shop", trace_id="t", deadline=None, metadata={})
NOBODY = CallContext(customer="", trace_id="t", deadline=None, metadata={})


@pytest.fixture
def catalogue(redis_client: redis.Redis) -> Catalogue:
    return Catalogue(redis_client)


@pytest.fixture
def servicer(catalogue: Catalogue) -> SearchServicer:
    return SearchServicer(CompactEngine(catalogue), catalogue, CatalogueVectors(catalogue))


def embedded(*values: float) -> EmbeddedObject:
    return EmbeddedObject(
        vectors=[Vector(space="identity", values=np.array(values, "<f4").tobytes())],
    )


def event(customer: str = "shop") -> ObjectsEmbedded:
    image = IngestedImage(event_id="e", customer=customer, product_id="p1", sha256="a")
    return ObjectsEmbedded(image=image, objects=[embedded(1, 0)], bundle=BUNDLE)


def test_what_was_indexed_is_found_in_order_of_the_queries(
    servicer: SearchServicer, catalogue: Catalogue
) -> None:
    product = Product(id="p1", price=3, images=["a"])
    catalogue.upsert_products("shop", [product], BUNDLE)
    indexed = servicer.IndexEmbedded(event(), SHOP)
    assert (indexed.objects, indexed.image) == (1, event().image)
    request = FindCandidatesRequest(
        queries=[embedded(1, 0), embedded(0, 1)], bundle=BUNDLE, filters=["price < 4"]
    )
    response = servicer.FindCandidates(request, SHOP)
    assert [[c.similarity["identity"] for c in r.candidates] for r in response.results] == [[1.0], [0.0]]
    assert list(response.products) == [product]
    request.filters[0] = "price > 4"
    response = servicer.FindCandidates(request, SHOP)
    assert [len(r.candidates) for r in response.results] == [0, 0]
    assert list(response.products) == []


def test_a_withdrawn_image_is_answered_with_no_objects(servicer: SearchServicer) -> None:
    assert servicer.IndexEmbedded(event(), SHOP).objects == 0


def test_limit_per_space_counts_objects_of_each_space(servicer: SearchServicer, catalogue: Catalogue) -> None:
    catalogue.upsert_products("shop", [Product(id="p1", images=["a"])], BUNDLE)
    many = event()
    many.objects.extend([embedded(1, 0)] * 149)
    servicer.IndexEmbedded(many, SHOP)
    for limit, found in ((0, 100), (1, 1), (1000, 150)):
        request = FindCandidatesRequest(queries=[embedded(1, 0)], bundle=BUNDLE, limit_per_space=limit)
        assert len(servicer.FindCandidates(request, SHOP).results[0].candidates) == found


def _set(**values: object) -> Callable[[FindCandidatesRequest], None]:
    def change(request: FindCandidatesRequest) -> None:
        for name, value in values.items():
            setattr(request, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.ClearField("queries"), "queries"),
        (lambda r: r.queries.extend([embedded(1, 0)] * 30), "queries"),
        (lambda r: r.queries.append(embedded(1, 1)), "queries[1].vectors[0].values"),
        (_set(bundle=""), "bundle"),
        (_set(limit_per_space=-1), "limit_per_space"),
        (_set(limit_per_space=1001), "limit_per_space"),
        (lambda r: r.filters.append("price <"), "filter"),
        (lambda r: r.filters.extend(["id = 'a'"] * 11), "filters"),
    ],
)
def test_a_bad_request_names_its_field(
    servicer: SearchServicer, change: Callable[[FindCandidatesRequest], None], field: str
) -> None:
    request = FindCandidatesRequest(queries=[embedded(1, 0)], bundle=BUNDLE)
    change(request)
    with pytest.raises(InvalidArgument) as error:
        servicer.FindCandidates(request, SHOP)
    assert error.value.field == field
    assert isinstance(error.value, FilterSyntax) == (field == "filter")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda e: e.image.ClearField("product_id"), "image.product_id"),
        (lambda e: e.ClearField("bundle"), "bundle"),
        (lambda e: e.ClearField("objects"), "objects"),
        (lambda e: e.objects.append(embedded(1, 0, 0)), "objects[1].vectors"),
        (lambda e: e.objects.append(embedded(3, 0)), "objects[1].vectors[0].values"),
        (lambda e: setattr(e.image, "customer", "other"), "image.customer"),
    ],
)
def test_a_bad_event_names_its_field(
    servicer: SearchServicer, change: Callable[[ObjectsEmbedded], None], field: str
) -> None:
    bad = event()
    change(bad)
    with pytest.raises(InvalidArgument) as error:
        servicer.IndexEmbedded(bad, SHOP)
    assert error.value.field == field


def test_no_customer_no_search(servicer: SearchServicer) -> None:
    request = FindCandidatesRequest(queries=[embedded(1, 0)], bundle=BUNDLE)
    with pytest.raises(Unauthenticated):
        servicer.FindCandidates(request, NOBODY)


def test_two_filters_may_each_be_as_long_as_a_filter_may_be(servicer: SearchServicer) -> None:
    long = " or ".join(["price > 4"] * 140)
    assert len(long) > 1700
    request = FindCandidatesRequest(queries=[embedded(1, 0)], bundle=BUNDLE, filters=[long, "price < 4"])
    assert [len(result.candidates) for result in servicer.FindCandidates(request, SHOP).results] == [0]
