"""Pages over a real Redis: what is shown while the catalogue changes, how deep it goes, what is kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from magpie.errors import InvalidArgument, Unavailable
from magpie.rpc.local_channel import LocalChannel
from magpie.store.pages import Pages
from magpie.v1.page_pb2 import Page
from magpie.v1.product_pb2 import Product
from magpie.v1.ranking_config_pb2 import Boost, Fusion, RankingConfig
from magpie.v1.visual_search_pb2 import EmbeddedQuery, SearchRequest, SearchResponse
from magpie.v1.visual_search_pb2_grpc import VisualSearchServiceStub
from tests.conftest import free_port
from tests.integration.whole_search import (
    BUNDLE,
    SPACES,
    Vectors,
    WholeSearch,
    embedded,
    similarity,
    some_vectors,
)

RNG = np.random.default_rng(11)
QUERY = some_vectors(RNG)


@pytest.fixture
def search(tmp_path: Path, redis_client: redis.Redis) -> WholeSearch:
    return WholeSearch(tmp_path, redis_client)


def ask(search: WholeSearch, customer: str = "shop", **fields: object) -> SearchResponse:
    request = SearchRequest(**fields)  # type: ignore[arg-type]
    if not request.page_token and not request.product_id:
        request.embedded.CopyFrom(EmbeddedQuery(bundle=BUNDLE, objects=[embedded(QUERY)]))
    stub = VisualSearchServiceStub(LocalChannel(search.registry))
    answer: SearchResponse = stub.Search(request, metadata=[("magpie-customer", customer)])
    return answer


def all_pages(search: WholeSearch, **fields: object) -> Iterator[SearchResponse]:
    page = ask(search, **fields)
    yield page
    while page.next_page_token:
        page = ask(search, page_token=page.next_page_token)
        yield page


def ids(page: SearchResponse) -> list[str]:
    return [hit.product_id for hit in page.objects[0].hits]


def near(share: float, seed: int) -> Vectors:
    """At a cosine of about `share` to the query."""
    noise = some_vectors(np.random.default_rng(seed))
    mixed = {space: share * QUERY[space] + (1 - share) * noise[space] for space in SPACES}
    return {space: (v / np.linalg.norm(v)).astype("<f4") for space, v in mixed.items()}


CONFIGS = {
    "plain": RankingConfig(),
    "ranks": RankingConfig(fusion=Fusion(method=Fusion.METHOD_RRF)),
    "variants": RankingConfig(group_variants=True),
    "near-duplicates": RankingConfig(near_duplicate_similarity=0.9),
    "boosts": RankingConfig(boosts=[Boost(filter="price < 3", weight=0.5)]),
    "all": RankingConfig(
        fusion=Fusion(method=Fusion.METHOD_RRF),
        group_variants=True,
        near_duplicate_similarity=0.9,
        boosts=[Boost(filter="price < 3", weight=0.5)],
    ),
}
writes = st.lists(
    st.tuples(
        st.sampled_from(["put", "delete", "reprice"]),
        st.integers(0, 30),  # which product
        st.integers(0, 99),  # the seed of its vectors
        st.integers(0, 6),  # its price
    ),
    max_size=12,
)


def write(search: WholeSearch, change: tuple[str, int, int, int]) -> None:
    action, number, seed, price = change
    id_ = f"p{number:02}"
    product = Product(id=id_, title=id_, price=price, group=f"g{number % 7}")
    match action:
        case "put":
            search.put("shop", product, [near(0.7, seed)])
        case "delete":
            search.catalogue.delete_products("shop", [id_])
        case "reprice":
            known = search.catalogue.products("shop", [id_]).get(id_)
            if known is not None:
                known.price = price
                search.catalogue.upsert_products("shop", [known], BUNDLE)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=st.sampled_from(sorted(CONFIGS)), limit=st.integers(1, 9), between=st.lists(writes, max_size=4))
def test_no_product_is_shown_twice_whatever_happens_between_two_pages(
    search: WholeSearch,
    redis_client: redis.Redis,
    config: str,
    limit: int,
    between: list[list[tuple[str, int, int, int]]],
) -> None:
    redis_client.flushall()
    search.configs["shop"] = CONFIGS[config]
    for number in range(25):
        write(search, ("put", number, number, number % 7))
    shown: list[str] = []
    named: set[str] = set()
    changes = iter(between)
    for page in all_pages(search, limit=limit):
        for hit in page.objects[0].hits:
            assert not {hit.product_id, *hit.stands_for} & named
        shown += ids(page)
        named |= {id_ for hit in page.objects[0].hits for id_ in (hit.product_id, *hit.stands_for)}
        for change in next(changes, []):
            write(search, change)
    assert len(shown) == len(set(shown))


@pytest.mark.parametrize("config", CONFIGS)
def test_pages_of_a_catalogue_that_stands_still_are_one_long_answer(search: WholeSearch, config: str) -> None:
    search.configs["shop"] = CONFIGS[config]
    for number in range(31):
        write(search, ("put", number, number, number % 7))
    whole = ask(search, limit=100)
    assert not whole.next_page_token
    for limit in (1, 4, 30, 31):
        pages = list(all_pages(search, limit=limit))
        hits = [hit for page in pages for hit in page.objects[0].hits]
        assert hits == list(whole.objects[0].hits)
        assert [len(page.objects[0].hits) for page in pages[:-1]] == [limit] * (len(pages) - 1)
        assert pages[-1].objects[0].hits


def test_pages_go_on_in_the_groups_of_the_request_and_count_facets_once(search: WholeSearch) -> None:
    for number in range(21):
        product = Product(id=f"p{number:02}", group=f"g{number % 7}", category="ab"[number % 2])
        search.put("shop", product, [near(0.7, number)])
    whole = ask(search, limit=100, group_by="group", facets=["category"])
    pages = list(all_pages(search, limit=3, group_by="group", facets=["category"]))
    assert [len(ids(page)) for page in pages] == [3, 3, 1]
    assert [hit for page in pages for hit in page.objects[0].hits] == list(whole.objects[0].hits)
    assert [len(page.objects[0].facets) for page in pages] == [1, 0, 0]
    assert pages[0].objects[0].facets == whole.objects[0].facets


def test_a_later_page_shows_what_the_catalogue_says_now(search: WholeSearch) -> None:
    for number in range(8):
        search.put("shop", Product(id=f"p{number}", title="old", price=1), [near(0.99 - number / 10, 1)])
    first = ask(search, limit=3, filter="price < 5")
    assert ids(first) == ["p0", "p1", "p2"]
    search.put("shop", Product(id="p3", title="dear by now", price=9), [near(0.69, 1)])
    search.put("shop", Product(id="p4", title="new", price=2), [near(0.59, 1)])
    search.catalogue.delete_products("shop", ["p5"])
    second = ask(search, page_token=first.next_page_token)
    assert ids(second) == ["p4", "p6", "p7"]
    assert second.objects[0].hits[0].title == "new"


def test_the_ranking_config_is_that_of_the_first_page(search: WholeSearch) -> None:
    for number in range(8):
        write(search, ("put", number, number, number))
    before = ids(ask(search, limit=8))
    first = ask(search, limit=4)
    search.configs["shop"] = RankingConfig(version=1, filter="price > 100")
    second = ask(search, page_token=first.next_page_token)
    assert ids(first) + ids(second) == before
    assert second.ranking_config_version == 0
    assert ids(ask(search)) == []


def fill(search: WholeSearch, count: int) -> dict[str, float]:
    """Products of one object each: id -> similarity to the query."""
    rng = np.random.default_rng(3)
    vectors = {f"p{number:04}": some_vectors(rng) for number in range(count)}
    for id_, of in vectors.items():
        search.put("shop", Product(id=id_), [of])
    return {id_: similarity(QUERY, of) for id_, of in vectors.items()}


def test_pages_end_with_the_thousand_nearest_objects(search: WholeSearch) -> None:
    scores = fill(search, 1060)
    shown = [id_ for page in all_pages(search, limit=100) for id_ in ids(page)]
    assert shown == sorted(scores, key=lambda id_: -scores[id_])[:1000]


def test_with_many_queries_pages_end_earlier(search: WholeSearch) -> None:
    fill(search, 160)
    queries = EmbeddedQuery(bundle=BUNDLE, objects=[embedded(some_vectors(RNG)) for _ in range(30)])
    stub = VisualSearchServiceStub(LocalChannel(search.registry))
    shown: list[set[str]] = [set() for _ in range(30)]
    request = SearchRequest(embedded=queries, limit=40)
    while True:
        page = stub.Search(request, metadata=[("magpie-customer", "shop")])
        for row, of_object in enumerate(page.objects):
            shown[row] |= {hit.product_id for hit in of_object.hits}
        if not page.next_page_token:
            break
        request = SearchRequest(page_token=page.next_page_token)
    assert [len(of_query) for of_query in shown] == [100] * 30


def test_variants_that_fill_the_candidates_do_not_end_a_page(search: WholeSearch) -> None:
    """The 250 nearest objects are one group; behind them are others."""
    search.configs["shop"] = RankingConfig(group_variants=True)
    for number in range(250):
        search.put("shop", Product(id=f"v{number:03}", group="shirt"), [near(0.95, number)])
    for number in range(12):
        search.put("shop", Product(id=f"w{number:02}"), [near(0.3, number)])
    pages = list(all_pages(search, limit=10))
    assert [len(ids(page)) for page in pages] == [10, 3]
    hits = [hit for page in pages for hit in page.objects[0].hits]
    assert sorted(hit.product_id[0] for hit in hits) == ["v"] + ["w"] * 12
    assert search.stage_calls.count("FindCandidates") == 3  # of 100 and 400 objects, of 400
    (shirt,) = [hit for hit in hits if hit.product_id.startswith("v")]
    assert len(shirt.stands_for) == 249


def test_a_cut_off_ends_the_pages_without_a_look_at_more(search: WholeSearch) -> None:
    scores = fill(search, 400)
    limit = sorted(scores.values())[-25]
    search.configs["shop"] = RankingConfig(min_score=limit - 1e-6)
    pages = list(all_pages(search, limit=20))
    assert [len(ids(page)) for page in pages] == [20, 5]
    assert search.stage_calls == ["FindCandidates", "Rerank"] * 2


def test_a_token_lives_for_some_minutes(search: WholeSearch, redis_client: redis.Redis) -> None:
    fill(search, 30)
    token = ask(search).next_page_token
    (key,) = redis_client.keys("magpie:{shop}:page:*")
    assert key == f"magpie:{{shop}}:page:{token}".encode()
    assert 590 < redis_client.ttl(key) <= 600
    redis_client.pexpire(key, 1)
    with pytest.raises(Exception, match="older than 10 minutes: search again"):
        while True:
            ask(search, page_token=token)


def test_what_is_kept_holds_no_photo_and_is_bounded(
    search: WholeSearch, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    pages = Pages(redis_client, max_bytes=2000)
    assert pages.read("shop", pages.keep("shop", Page(query_id="q"))) == Page(query_id="q")
    with caplog.at_level(logging.WARNING):
        assert pages.keep("shop", Page(query_id="q_large", filters=["x" * 2000])) == ""
    assert "q_large" in caplog.text
    fill(search, 30)
    ask(search)
    (key,) = [key for key in redis_client.keys("magpie:{shop}:page:*") if redis_client.strlen(key) > 100]
    assert redis_client.strlen(key) < 1000


def test_a_search_goes_on_without_the_store_of_pages(tmp_path: Path, redis_client: redis.Redis) -> None:
    """Its answer has no token then; a token that was given cannot be read, which is worth another try."""
    away = Pages(redis.Redis(port=free_port(), retry=Retry(NoBackoff(), 0)))
    search = WholeSearch(tmp_path, redis_client, away)
    fill(search, 30)
    response = ask(search)
    assert len(ids(response)) == 10
    assert response.next_page_token == ""
    with pytest.raises(Unavailable):
        away.read("shop", "A" * 32)
    with pytest.raises(InvalidArgument):  # without a question to Redis
        away.read("shop", "no token")


def test_pages_of_two_customers_never_meet(search: WholeSearch) -> None:
    for customer in ("shop", "rival"):
        for number in range(30):
            search.put(customer, Product(id=f"p{number}", title=customer), [near(0.7, number)])
    for customer, other in (("shop", "rival"), ("rival", "shop")):
        token = ask(search, customer, limit=5).next_page_token
        with pytest.raises(Exception, match="page_token: is unknown"):
            ask(search, other, page_token=token)
        assert {hit.title for hit in ask(search, customer, page_token=token).objects[0].hits} == {customer}
