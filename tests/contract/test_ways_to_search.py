"""Every way to ask for products, over every transport: a photo's boxes, a product, vectors, pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import redis

from magpie import geometry
from magpie.v1.image_pb2 import Box, EmbeddedObject, Image
from magpie.v1.product_pb2 import Product
from magpie.v1.ranking_config_pb2 import RankingConfig
from magpie.v1.visual_search_pb2 import EmbeddedQuery, SearchRequest, SearchResponse
from magpie.v1.visual_search_pb2_grpc import VisualSearchServiceStub
from magpie.vision.decode import decode
from magpie.vision.preprocess import crops
from tests.contract.transports import TRANSPORTS, Keys, Transport
from tests.integration.whole_search import (
    BUNDLE,
    WholeSearch,
    embedded,
    photo,
    similarity,
    some_vectors,
)
from tests.unit.vision import tiny_models

CUSTOMERS = ("shop", "rival")
RED, BLUE = (220, 40, 30), (20, 60, 200)
LEFT, RIGHT = Box(x0=0, y0=0, x1=0.5, y1=1), Box(x0=0.5, y0=0, x1=1, y1=1)
PHOTO = Image(content=photo(RED, BLUE))
PRODUCTS = 25
RNG = np.random.default_rng(7)
VECTORS = {f"p{number:02}": some_vectors(RNG) for number in range(PRODUCTS)}


@pytest.fixture
def search(tmp_path: Path, redis_client: redis.Redis) -> WholeSearch:
    """Two customers whose products differ in their titles alone."""
    whole = WholeSearch(tmp_path, redis_client)
    for customer in CUSTOMERS:
        for number, (id_, vectors) in enumerate(VECTORS.items()):
            product = Product(id=id_, title=f"{customer}'s {id_}", group=f"g{number // 5}", price=number)
            whole.put(customer, product, [vectors])
    return whole


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, search: WholeSearch) -> Iterator[Transport]:
    """Each of them, to the one public service."""
    with ExitStack() as stack:
        keys = Keys({f"key of {customer}": customer for customer in CUSTOMERS})
        yield stack.enter_context(TRANSPORTS[request.param](search.registry, keys))


class Caller:
    """One customer's calls."""

    def __init__(self, transport: Transport, customer: str = "shop") -> None:
        self._stub = VisualSearchServiceStub(transport.channel)
        self._metadata = transport.calls_as(customer)

    def __call__(self, request: SearchRequest | None = None, **fields: Any) -> SearchResponse:
        answer: SearchResponse = self._stub.Search(
            request or SearchRequest(**fields), metadata=self._metadata, timeout=30
        )
        return answer

    def refused(self, **fields: Any) -> tuple[str, str]:
        """Status and message."""
        with pytest.raises(grpc.RpcError) as error:
            self(**fields)
        return error.value.code().name, error.value.details() or ""


def ids(response: SearchResponse, row: int = 0) -> list[str]:
    return [hit.product_id for hit in response.objects[row].hits]


def nearest(vectors: Any, but: tuple[str, ...] = (), **shares: float) -> list[str]:
    """All products, by the naive loop."""
    score = {id_: similarity(vectors, of, *([shares] if shares else [])) for id_, of in VECTORS.items()}
    return sorted((id_ for id_ in VECTORS if id_ not in but), key=lambda id_: -score[id_])


def test_each_box_is_answered_as_if_it_were_alone(transport: Transport) -> None:
    call = Caller(transport)
    alone = [call(image=PHOTO, box=box, limit=5) for box in (LEFT, RIGHT)]
    assert ids(alone[0]) != ids(alone[1])
    together = call(image=PHOTO, boxes=[RIGHT, LEFT, RIGHT], limit=5)
    assert [found.object.box for found in together.objects] == [RIGHT, LEFT, RIGHT]
    assert [ids(together, row) for row in range(3)] == [ids(alone[1]), ids(alone[0]), ids(alone[1])]
    assert {found.object.label for found in together.objects} == {"query"}


def test_like_a_product_leaves_it_out(transport: Transport) -> None:
    response = Caller(transport)(product_id="p03", limit=PRODUCTS)
    assert ids(response) == nearest(VECTORS["p03"], but=("p03",))
    assert len(response.objects) == 1
    assert set(response.timings_ms) == {"lookup", "search", "reranking", "total"}


def test_like_a_product_leaves_out_its_group_where_variants_are_grouped(
    transport: Transport, search: WholeSearch
) -> None:
    call = Caller(transport)
    for fields in (
        {"group_by": "group"},
        {"group_by": "group", "filter": "price >= 4"},  # the product itself does not pass
        {},
    ):
        if not fields:
            search.configs["shop"] = RankingConfig(group_variants=True)
        hits = call(product_id="p03", limit=PRODUCTS, **fields).objects[0].hits
        assert len(hits) == 4
        named = {id_ for hit in hits for id_ in (hit.product_id, *hit.stands_for)}
        assert named == {id_ for id_ in VECTORS if id_ >= "p05"}
    by_title = call(product_id="p03", limit=PRODUCTS, group_by="title")  # in place of the config's
    assert ids(by_title) == nearest(VECTORS["p03"], but=("p03",))


def test_weights_of_the_request_stand_in_place_of_the_customer_s(
    transport: Transport, search: WholeSearch
) -> None:
    call = Caller(transport)
    response = call(product_id="p03", limit=PRODUCTS, weights={"category": 2}, explain=True)
    assert ids(response) == nearest(VECTORS["p03"], but=("p03",), category=1.0)
    assert {reason.term for hit in response.objects[0].hits for reason in hit.reasons} == {"category"}
    assert ids(call(product_id="p03", limit=PRODUCTS)) == nearest(VECTORS["p03"], but=("p03",))
    assert call.refused(product_id="p03", weights={"colour": 1})[1].startswith("weights['colour']: ")
    assert call.refused(product_id="p03", weights={"identity": -1})[1].startswith("weights['identity']: ")
    assert call.refused(product_id="p03", weights={"identity": 0})[1].startswith("weights: ")


def test_vectors_made_elsewhere_find_what_the_photo_finds(transport: Transport, search: WholeSearch) -> None:
    call = Caller(transport)
    by_photo = call(image=PHOTO, boxes=[LEFT, RIGHT], limit=PRODUCTS)
    squares = crops(
        decode(PHOTO.content).pixels,
        [geometry.Box(0, 0, 0.5, 1), geometry.Box(0.5, 0, 1, 1)],
        tiny_models.INPUT,
    )
    vectors = search.embedder.embed(squares)  # space -> (2, dimension)
    objects = [embedded({space: of_both[row] for space, of_both in vectors.items()}) for row in (0, 1)]
    objects[0].object.box.CopyFrom(LEFT)
    objects[1].ClearField("object")
    response = call(embedded=EmbeddedQuery(bundle=BUNDLE, objects=objects), limit=PRODUCTS)
    assert [ids(response, row) for row in (0, 1)] == [ids(by_photo, row) for row in (0, 1)]
    assert [found.object.box for found in response.objects] == [LEFT, Box(x1=1, y1=1)]
    assert response.bundle == by_photo.bundle == BUNDLE
    assert set(response.timings_ms) == {"search", "reranking", "total"}


def test_pages_together_are_the_whole_ranking(transport: Transport) -> None:
    call = Caller(transport)
    asked = EmbeddedQuery(bundle=BUNDLE, objects=[embedded(VECTORS[id_]) for id_ in ("p00", "p01")])
    page = call(embedded=asked, limit=10, filter="price > 0", explain=True, include_image_urls=True)
    query_id, pages = page.query_id, [page]
    while page.next_page_token:
        token = page.next_page_token
        page = call(page_token=token)
        again = call(page_token=token)
        assert [ids(again, row) for row in (0, 1)] == [ids(page, row) for row in (0, 1)]
        assert page.query_id == query_id
        assert [found.object for found in page.objects] == [found.object for found in pages[0].objects]
        assert all(hit.reasons and hit.image_url for found in page.objects for hit in found.hits)
        pages.append(page)
    assert [[len(found.hits) for found in page.objects] for page in pages] == [[10, 10], [10, 10], [4, 4]]
    for row, id_ in enumerate(("p00", "p01")):
        shown = [hit for page in pages for hit in ids(page, row)]
        assert shown == nearest(VECTORS[id_], but=("p00",))


def test_a_token_is_its_customer_s_alone_and_only_as_it_is(transport: Transport) -> None:
    call, rival = Caller(transport), Caller(transport, "rival")
    token = call(product_id="p00", limit=5).next_page_token
    unknown = call.refused(page_token="A" * len(token))
    assert unknown[0] == "INVALID_ARGUMENT"
    assert unknown[1].startswith("page_token: ")
    assert "search again" in unknown[1]
    assert rival.refused(page_token=token) == unknown
    for altered in (token[:-1], token + "A", token.swapcase(), token[::-1], "é\0{}*", " " + token):
        assert call.refused(page_token=altered) == unknown
    assert all(hit.title.startswith("shop's") for hit in call(page_token=token).objects[0].hits)


def test_a_photo_needs_no_second_sending(transport: Transport) -> None:
    call = Caller(transport)
    first = call(image=PHOTO, limit=10)
    assert set(first.timings_ms) == {"detection", "embedding", "search", "reranking", "total"}
    second = call(page_token=first.next_page_token)
    assert set(second.timings_ms) == {"search", "reranking", "total"}
    assert ids(first) + ids(second) == ids(call(image=PHOTO, limit=20))


def without(vectors: EmbeddedObject, **change: Any) -> EmbeddedQuery:
    query = EmbeddedQuery(bundle=BUNDLE, objects=[embedded(VECTORS["p00"]), vectors])
    for name, value in change.items():
        setattr(query, name, value)
    return query


def damaged(row: int, values: np.ndarray | None = None, space: str | None = None) -> EmbeddedObject:
    of = embedded(VECTORS["p00"])
    if values is not None:
        of.vectors[row].values = values.astype("<f4").tobytes()
    if space is not None:
        of.vectors[row].space = space
    return of


def one_space() -> EmbeddedObject:
    of = embedded(VECTORS["p00"])
    del of.vectors[1]
    return of


GOOD = embedded(VECTORS["p00"])
NOT_FINITE = np.array([np.nan] * 8)
BAD = Box(x0=0.5, y0=0, x1=0.2, y1=1)


@pytest.mark.parametrize(
    ("fields", "status", "begins"),
    [
        ({}, "INVALID_ARGUMENT", "image: "),
        ({"image": Image()}, "INVALID_ARGUMENT", "image: "),
        ({"image": PHOTO, "product_id": "p00"}, "INVALID_ARGUMENT", "product_id: "),
        ({"product_id": "p00", "embedded": EmbeddedQuery()}, "INVALID_ARGUMENT", "embedded: "),
        ({"product_id": "p00", "page_token": "t"}, "INVALID_ARGUMENT", "page_token: "),
        ({"page_token": "t", "limit": 3}, "INVALID_ARGUMENT", "page_token: stands alone"),
        ({"image": PHOTO, "box": LEFT, "boxes": [LEFT]}, "INVALID_ARGUMENT", "boxes: "),
        ({"image": PHOTO, "boxes": [LEFT] * 31}, "INVALID_ARGUMENT", "boxes: at most 30, got 31"),
        ({"image": PHOTO, "boxes": [LEFT, BAD]}, "INVALID_ARGUMENT", "boxes[1]: "),
        ({"product_id": "p00", "boxes": [LEFT]}, "INVALID_ARGUMENT", "boxes: "),
        ({"product_id": "p00", "box": LEFT}, "INVALID_ARGUMENT", "box: "),
        ({"product_id": "p00", "limit": 101}, "INVALID_ARGUMENT", "limit: "),
        ({"product_id": "p00", "limit": -1}, "INVALID_ARGUMENT", "limit: "),
        ({"product_id": "p00", "filter": "price <"}, "INVALID_ARGUMENT", "filter: "),
        ({"product_id": "p00", "filter": "colour = 'red'"}, "INVALID_ARGUMENT", "filter: "),
        ({"product_id": "p00", "facets": ["colour"]}, "INVALID_ARGUMENT", "facets[0]: "),
        ({"product_id": "p00", "group_by": "price"}, "INVALID_ARGUMENT", "group_by: "),
        ({"page_token": "t", "facets": ["price"]}, "INVALID_ARGUMENT", "page_token: stands alone"),
        ({"product_id": "none"}, "NOT_FOUND", "product_id: there is no product 'none'"),
        ({"embedded": without(GOOD, bundle="")}, "INVALID_ARGUMENT", "embedded.bundle: "),
        (
            {"embedded": without(GOOD, bundle="tiny@0")},
            "FAILED_PRECONDITION",
            "embedded.bundle: the vectors are of tiny@0, in use is tiny@1",
        ),
        ({"embedded": EmbeddedQuery(bundle=BUNDLE)}, "INVALID_ARGUMENT", "embedded.objects: "),
        (
            {"embedded": EmbeddedQuery(bundle=BUNDLE, objects=[GOOD] * 31)},
            "INVALID_ARGUMENT",
            "embedded.objects: ",
        ),
        (
            {"embedded": without(damaged(0, 2 * VECTORS["p00"]["identity"]))},
            "INVALID_ARGUMENT",
            "embedded.objects[1].vectors[0].values: ",
        ),
        (
            {"embedded": without(damaged(0, NOT_FINITE))},
            "INVALID_ARGUMENT",
            "embedded.objects[1].vectors[0].values: ",
        ),
        (
            {"embedded": without(damaged(1, np.array([1, 0, 0])))},
            "INVALID_ARGUMENT",
            "embedded.objects[1].vectors: ",
        ),
        (
            {"embedded": without(damaged(1, space="colour"))},
            "INVALID_ARGUMENT",
            "embedded.objects[1].vectors: ",
        ),
        (
            {"embedded": without(damaged(1, space="identity"))},
            "INVALID_ARGUMENT",
            "embedded.objects[1].vectors[1].space: ",
        ),
        ({"embedded": without(one_space())}, "INVALID_ARGUMENT", "embedded.objects[1].vectors: "),
        ({"embedded": without(EmbeddedObject())}, "INVALID_ARGUMENT", "embedded.objects[1].vectors: "),
    ],
)
def test_a_bad_request_names_its_field(
    transport: Transport, fields: dict[str, Any], status: str, begins: str
) -> None:
    refused = Caller(transport).refused(**fields)
    assert refused[0] == status
    assert refused[1].startswith(begins), refused[1]
