"""Search by product id: which of its pictures is taken, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import redis

from magpie.index.compaction import compact
from magpie.rpc.local_channel import LocalChannel
from magpie.store.catalogue import archived_in
from magpie.store.snapshots import Snapshots
from magpie.v1.catalog_pb2 import ImageStatus
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Box
from magpie.v1.product_pb2 import Product
from magpie.v1.visual_search_pb2 import SearchRequest, SearchResponse
from magpie.v1.visual_search_pb2_grpc import VisualSearchServiceStub
from tests.integration.whole_search import BUNDLE, SPACES, WholeSearch, embedded, similarity, some_vectors
from tests.random_codes import random_codes

WHOLE = Box(x0=0, y0=0, x1=1, y1=1)
RNG = np.random.default_rng(5)


@pytest.fixture
def search(tmp_path: Path, redis_client: redis.Redis) -> WholeSearch:
    return WholeSearch(tmp_path, redis_client)


def like(search: WholeSearch, product_id: str, customer: str = "shop", limit: int = 100) -> SearchResponse:
    stub = VisualSearchServiceStub(LocalChannel(search.registry))
    request = SearchRequest(product_id=product_id, limit=limit)
    answer: SearchResponse = stub.Search(request, metadata=[("magpie-customer", customer)])
    return answer


def refused(search: WholeSearch, product_id: str, customer: str = "shop") -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        like(search, product_id, customer)
    return error.value.code().name, error.value.details() or ""


def test_the_whole_of_the_first_picture_that_is_indexed_is_taken(search: WholeSearch) -> None:
    vectors = {name: some_vectors(RNG) for name in ("box", "whole", "second", *"abcdefgh")}
    for id_ in "abcdefgh":
        search.put("shop", Product(id=id_), [vectors[id_]])
    search.put("shop", Product(id="p"), [vectors["box"], vectors["whole"]], [vectors["second"]])
    response = like(search, "p")
    expected = sorted("abcdefgh", key=lambda id_: -similarity(vectors["whole"], vectors[id_]))
    assert [hit.product_id for hit in response.objects[0].hits] == expected
    assert (response.objects[0].object.box, response.objects[0].object.label) == (WHOLE, "image")
    # A new first picture that is still on its way: the second, which was the first, is taken.
    product = search.catalogue.products("shop", ["p"])["p"]
    product.images[:] = ["new", *product.images]
    search.catalogue.upsert_products("shop", [product], BUNDLE)
    assert [hit.product_id for hit in like(search, "p").objects[0].hits] == expected


def test_vectors_that_have_moved_into_a_snapshot_are_found_there(
    redis_client: redis.Redis, s3: Any, bucket: str, tmp_path: Path
) -> None:
    snapshots = Snapshots(s3, bucket, tmp_path / "snapshots")
    search = WholeSearch(tmp_path, redis_client, snapshots=snapshots)
    for number in range(12):
        search.put("shop", Product(id=f"p{number}"), *[[some_vectors(RNG) for _ in range(3)]] * 2)
    before = [(hit.product_id, hit.score) for hit in like(search, "p3").objects[0].hits]
    for price in (1, 2):  # the catalogue lets go of what two snapshots have
        search.catalogue.upsert_products("shop", [Product(id="bare", price=price)], BUNDLE)
        assert compact(search.catalogue, snapshots, random_codes(SPACES), "shop", BUNDLE)
    assert all(map(archived_in, search.catalogue.stored_objects("shop", BUNDLE, "p3").values()))
    response = like(search, "p3")
    assert (response.objects[0].object.box, response.objects[0].object.label) == (WHOLE, "image")
    assert [hit.product_id for hit in response.objects[0].hits] == [id_ for id_, _ in before]
    np.testing.assert_allclose(
        [hit.score for hit in response.objects[0].hits], [score for _, score in before], atol=0.02
    )


def test_many_pictures_of_its_own_leave_room_for_others(search: WholeSearch) -> None:
    vectors = some_vectors(RNG)
    search.put("shop", Product(id="p"), *([[vectors] * 3] * 50))  # more objects than candidates are taken
    search.put("shop", Product(id="other"), [some_vectors(RNG)])
    assert [hit.product_id for hit in like(search, "p", limit=1).objects[0].hits] == ["other"]


@pytest.mark.parametrize("id_", ["a'b", 'a"b', "a' or id != '", "a\\", "a b\u2028", "商品", "x" * 128])
def test_an_id_is_no_filter(search: WholeSearch, id_: str) -> None:
    for each in (id_, "other", "third"):
        search.put("shop", Product(id=each), [some_vectors(RNG)])
    assert {hit.product_id for hit in like(search, id_).objects[0].hits} == {"other", "third"}


def test_a_product_alone_has_nothing_like_it(search: WholeSearch) -> None:
    search.put("shop", Product(id="p"), [some_vectors(RNG)])
    response = like(search, "p")
    assert list(response.objects[0].hits) == []
    assert response.next_page_token == ""


def test_a_product_of_another_customer_is_unknown(search: WholeSearch) -> None:
    search.put("rival", Product(id="p"), [some_vectors(RNG)])
    assert refused(search, "p") == ("NOT_FOUND", "product_id: there is no product 'p'")
    assert like(search, "p", "rival").objects


def test_without_an_indexed_picture_it_is_told_how_far_they_are(search: WholeSearch) -> None:
    catalogue = search.catalogue
    catalogue.upsert_products("shop", [Product(id="bare"), Product(id="p", images=["a", "b", "c"])], BUNDLE)
    code, message = refused(search, "bare")
    assert (code, message.rpartition(": ")[0]) == (
        "FAILED_PRECONDITION",
        f"product_id: 'bare' has no picture in the index of {BUNDLE}: it lists no pictures",
    )
    image = IngestedImage(event_id="e", customer="shop", product_id="p", sha256="a")
    catalogue.set_state(image, ImageStatus.STATE_FAILED, "is truncated")
    code, message = refused(search, "p")
    assert code == "FAILED_PRECONDITION"
    assert message.endswith("its pictures are 1 failed (is truncated), 2 awaiting upload")


def test_vectors_of_another_bundle_do_not_count(search: WholeSearch) -> None:
    search.catalogue.upsert_products("shop", [Product(id="p", images=["a"])], "tiny@0")
    image = IngestedImage(event_id="e", customer="shop", product_id="p", sha256="a")
    objects = [embedded(some_vectors(RNG))]
    search.catalogue.write_objects(ObjectsEmbedded(image=image, objects=objects, bundle="tiny@0"))
    code, message = refused(search, "p")
    assert code == "FAILED_PRECONDITION"
    assert f"no picture in the index of {BUNDLE}: its pictures are 1 indexed under another bundle" in message
