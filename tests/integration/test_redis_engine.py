"""The redis engine where the contract suite does not reach: filters, names that try to escape, deaths."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from local.redis_server import search_module
from magpie.errors import FailedPrecondition, Unavailable
from magpie.index import redis_follower
from magpie.index.archived_objects import ArchivedObjects
from magpie.index.compaction import compact
from magpie.index.filter import parse
from magpie.index.filter_terms import And, Comparison, Exists, Filter, In, Not, Or, Value
from magpie.index.redis_engine import RedisEngine
from magpie.index.redis_filter import pushdown
from magpie.index.redis_schema import NUMBER_SLOTS, VectorIndex, follow_key
from magpie.index.search_capabilities import Capabilities
from magpie.index.search_server import Command, SearchServer
from magpie.store.catalogue import Catalogue
from magpie.store.snapshots import Snapshots
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Box, DetectedObject, EmbeddedObject, Vector
from magpie.v1.product_pb2 import AttributeValue, Product, TextSet
from tests.conftest import free_port, redis_process
from tests.random_codes import random_codes

BUNDLE = "default@1"
FLAT = VectorIndex("flat")
AHEAD = np.array([1, 0, 0, 0], np.float32)
in_tests = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def search(search_url: str) -> Iterator[redis.Redis]:
    """A client of the server with search, whose data is empty."""
    with redis.Redis.from_url(search_url, protocol=2) as client:
        client.flushall()
        yield client


@dataclass
class Shop:
    """One customer's catalogue. Every object has AHEAD as its vector, unless it is given another."""

    catalogue: Catalogue
    customer: str = "shop"
    made: itertools.count[int] = field(default_factory=itertools.count)

    def put(self, product: Product, vector: NDArray[np.float32] = AHEAD, objects: int = 1) -> None:
        self.catalogue.upsert_products(self.customer, [product], BUNDLE)
        for sha256 in product.images:
            embedded = EmbeddedObject(
                object=DetectedObject(box=Box(x1=1, y1=1)),
                vectors=[Vector(space="identity", values=vector.astype("<f4").tobytes())],
            )
            image = IngestedImage(
                event_id=str(next(self.made)), customer=self.customer, product_id=product.id, sha256=sha256
            )
            self.catalogue.write_objects(
                ObjectsEmbedded(image=image, objects=[embedded] * objects, bundle=BUNDLE)
            )


def found(
    engine: RedisEngine, customer: str = "shop", condition: Filter | None = None, limit: int = 1000
) -> list[str]:
    """Products, one for each object."""
    answer = engine.find(customer, BUNDLE, [{"identity": AHEAD}], condition, limit, {"identity": 1})
    return sorted(candidate.product_id for candidate in answer.results[0])


def documents(search: redis.Redis) -> int:
    return sum(1 for _ in search.scan_iter(match="magpie-object:*", count=1000))


# --- Filters

NAMES = ["colour", "weight", "sale", "price", "title", "category"]
TEXTS = ["red", "Red", "", "a|b", "} | @customer:{*", "-(x)", "'\"\\", "ä b\n", "true", "1"]
SETS = [frozenset({"red"}), frozenset({"red", "a|b"}), frozenset({""})]
NUMBERS = [0.0, -0.0, 1.0, -2.5, 0.1, 1e-7, 123456789.125, 1e300, -1e300, 5e-324, 2.0**53 + 2]
literals = st.one_of(st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.booleans())
values = literals | st.sampled_from(SETS)


def attribute(value: Value) -> AttributeValue:
    match value:
        case frozenset():
            return AttributeValue(texts=TextSet(values=value))
        case bool():
            return AttributeValue(flag=value)
        case str():
            return AttributeValue(text=value)
    return AttributeValue(number=value)


@st.composite
def products(draw: st.DrawFn) -> Product:
    names = draw(st.sets(st.sampled_from(NAMES[:3])))
    return Product(
        title=draw(st.sampled_from(TEXTS)),
        category=draw(st.sampled_from(TEXTS)),
        price=draw(st.none() | st.sampled_from([abs(number) for number in NUMBERS])),
        attributes={name: attribute(draw(values)) for name in names},
    )


def terms() -> st.SearchStrategy[Filter]:
    name = st.sampled_from(NAMES)
    compared = st.builds(Comparison, name, st.sampled_from(["=", "!="]), literals)
    ordered = st.builds(Comparison, name, st.sampled_from(["<", "<=", ">", ">="]), st.sampled_from(NUMBERS))
    leaf = compared | ordered | st.builds(Exists, name)
    leaf |= st.builds(In, name, st.lists(literals, min_size=1, max_size=4).map(tuple))
    several = lambda inner: st.lists(inner, min_size=2, max_size=3).map(tuple)  # noqa: E731
    return st.recursive(
        leaf,
        lambda inner: st.builds(Not, inner) | st.builds(And, several(inner)) | st.builds(Or, several(inner)),
        max_leaves=8,
    )


@in_tests
@given(
    st.lists(products(), min_size=1, max_size=6), st.lists(terms(), min_size=1, max_size=5), st.integers(1, 9)
)
@example([Product(title="-(x)")], [Not(Comparison("title", "=", "-(x)"))], 9)
def test_the_server_and_the_engine_together_evaluate_filters_exactly(
    redis_client: redis.Redis,
    search_url: str,
    search: redis.Redis,
    stock: list[Product],
    conditions: list[Filter],
    limit: int,
) -> None:
    redis_client.flushall()
    search.flushall()
    shop = Shop(Catalogue(redis_client))
    for number, product in enumerate(stock):
        product.id = f"p{number}"
        product.images[:] = ["a"]
        shop.put(product)
    server = SearchServer(search_url, FLAT)
    for engine in (
        RedisEngine(shop.catalogue, server),
        RedisEngine(shop.catalogue, OfFewTerms(search_url, FLAT)),
    ):
        for condition in conditions:
            assert found(engine, condition=condition) == [p.id for p in stock if condition.matches(p)]
            assert len(found(engine, condition=condition, limit=limit)) == min(
                limit, sum(condition.matches(p) for p in stock)
            )


class OfFewTerms(SearchServer):
    """Takes so few terms that most of a filter is left to the engine."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, max_terms=2)


@given(terms(), st.integers(1, 20))
def test_what_the_server_is_told_says_nothing_of_its_language(condition: Filter, max_terms: int) -> None:
    pushed = pushdown("} @x | *", condition, {"colour": 3}, max_terms)
    assert set(pushed.query) <= set("abcdefghijklmnopqrstuvwxyz0123456789@:{}[]()|- .+")
    assert pushed.query.count("@") <= max_terms
    assert pushed.query.startswith("@customer:{t")
    depth = 0
    for character in pushed.query:
        depth += (character == "(") - (character == ")")
        if "[" not in pushed.query:
            assert depth >= 0


def test_numeric_attributes_beyond_the_slots_are_compared_too(
    redis_client: redis.Redis, search_url: str, search: redis.Redis
) -> None:
    shop = Shop(Catalogue(redis_client))
    engine = RedisEngine(shop.catalogue, SearchServer(search_url, FLAT))
    names = [f"number_{n}" for n in range(NUMBER_SLOTS + 4)]
    for i in range(30):
        shop.put(Product(id=f"p{i}", images=["a"], attributes={name: attribute(float(i)) for name in names}))
    assert len(engine.follower.caught_up("shop", BUNDLE).slots) == NUMBER_SLOTS
    for name in (names[0], names[-1]):
        assert len(found(engine, condition=parse(f"{name} >= 20 and {name} != 25"))) == 9
        assert len(found(engine, condition=parse(f"{name} = 29"), limit=3)) == 1


# --- Isolation ------------------------------------------------------------------------------------------

CUSTOMERS = [
    "s",
    "shop",
    "s/1",
    "s}",
    "{s}",
    "s|shop",
    "*",
    "s:default@1",
    "@customer:{*}",
    " ",
    "ä%2F",
    "-s",
]


@in_tests
@given(
    st.lists(st.tuples(st.sampled_from(CUSTOMERS), st.booleans()), min_size=1, max_size=12),
    st.sampled_from(
        ["", "id = 'p'", "not id = 'x'", "id != '*' or price > 0", "title = '} | @customer:{*}'"]
    ),
)
def test_no_customer_finds_what_is_another_s(
    redis_client: redis.Redis,
    search_url: str,
    search: redis.Redis,
    steps: list[tuple[str, bool]],
    text: str,
) -> None:
    redis_client.flushall()
    search.flushall()
    condition = parse(text) if text else None
    shops = {customer: Shop(Catalogue(redis_client), customer) for customer in CUSTOMERS}
    engine = RedisEngine(Catalogue(redis_client), SearchServer(search_url, FLAT))
    has: dict[str, Product] = {}
    for customer, put in steps:
        if put:
            has[customer] = Product(id="p", title=f"of {customer}", price=1, images=["a"])
            shops[customer].put(has[customer])
        else:
            shops[customer].catalogue.delete_products(customer, ["p"])
            has.pop(customer, None)
    for customer in CUSTOMERS:
        answer = engine.find(customer, BUNDLE, [{"identity": AHEAD}], condition, 10)
        mine = (
            [has[customer]]
            if customer in has and (condition is None or condition.matches(has[customer]))
            else []
        )
        assert answer.products == mine
        assert len(answer.results[0]) == len(mine)


# --- Deaths ---------------------------------------------------------------------------------------------


class Died(BaseException):
    """As `kill -9`: nothing of the process runs any more, not even a `finally`."""


class Mortal(SearchServer):
    """Dies before its n-th round trip of writing, or after it."""

    lives = math.inf
    after = False

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        if self.lives <= 0:
            raise Died  # a dead process sends nothing
        writes = any(command[0] not in ("HGETALL", "HMGET", "HSCAN") for command in commands)
        self.lives -= writes
        if self.lives <= 0 and not self.after:
            raise Died
        answer = super().execute(commands)
        if self.lives <= 0:
            raise Died
        return answer


def test_a_death_at_any_step_loses_nothing_and_doubles_nothing(
    redis_client: redis.Redis, search_url: str, search: redis.Redis
) -> None:
    shop = Shop(Catalogue(redis_client))
    survivor = RedisEngine(shop.catalogue, SearchServer(search_url, FLAT))

    def write(number: int) -> list[str]:
        """Every kind of change; what must be found afterwards."""
        for i in range(4):
            shop.put(
                Product(id=f"p{i}", price=number, images=["a", f"b{number}"]), objects=1 + (i + number) % 2
            )
        shop.catalogue.delete_products("shop", [f"p{number % 4}"])
        kept = [i for i in range(4) if i != number % 4]
        return sorted(f"p{i}" for i in kept for _ in range(2 * (1 + (i + number) % 2)))

    deaths = 0
    for number, after in itertools.product(range(40), (False, True)):
        expected = write(number)
        if number % 5 == 4:  # everything has to be compared
            search.delete(follow_key("shop", BUNDLE))
        mortal = Mortal(search_url, FLAT)
        mortal.lives, mortal.after = 1 + number % 12, after
        try:
            found(RedisEngine(shop.catalogue, mortal))
        except Died:
            deaths += 1
            search.delete(f"{follow_key('shop', BUNDLE)}:lock")  # it would expire
        assert found(survivor) == expected
        assert found(survivor, condition=parse(f"price = {number}")) == expected
        assert documents(search) == len(expected)
    assert deaths > 20


def test_a_writer_that_slept_past_its_lock_changes_nothing(
    redis_client: redis.Redis, search_url: str, search: redis.Redis
) -> None:
    shop = Shop(Catalogue(redis_client))
    shop.put(Product(id="p", price=1, images=["a"]))
    fresh = RedisEngine(shop.catalogue, SearchServer(search_url, FLAT))
    assert found(fresh) == ["p"]

    class Sleepy(SearchServer):
        def execute(self, commands: Sequence[Command]) -> list[Any]:
            if any("magpie-registry" in str(command[3:4]) for command in commands):
                # Its lock expires, and another process writes what is newer.
                search.delete(f"{follow_key('shop', BUNDLE)}:lock")
                shop.put(Product(id="p", price=3, images=["a"]))
                assert found(fresh, condition=parse("price = 3")) == ["p"]
            return super().execute(commands)

    shop.put(Product(id="p", price=2, images=["a"]))
    with pytest.raises(Unavailable, match="try again"):
        found(RedisEngine(shop.catalogue, Sleepy(search_url, FLAT)))
    assert found(fresh, condition=parse("price = 3")) == ["p"]
    assert documents(search) == 1


def follow_for_ever(redis_url: str, search_url: str) -> None:
    engine = RedisEngine(Catalogue(redis.Redis.from_url(redis_url)), SearchServer(search_url, FLAT))
    while True:
        engine.follower.compare("shop", BUNDLE)


def test_processes_that_are_killed(
    redis_client: redis.Redis, redis_url: str, search_url: str, search: redis.Redis
) -> None:
    shop = Shop(Catalogue(redis_client))
    for i in range(300):
        shop.put(Product(id=f"p{i}", images=["a"]))
    context = multiprocessing.get_context("spawn")
    for delay in (0.0, 0.05, 0.3):
        process = context.Process(target=follow_for_ever, args=(redis_url, search_url))
        process.start()
        while not search.exists(follow_key("shop", BUNDLE)):
            time.sleep(0.001)
        time.sleep(delay)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        search.delete(follow_key("shop", BUNDLE))
    engine = RedisEngine(shop.catalogue, SearchServer(search_url, FLAT))
    engine.follower.compare("shop", BUNDLE)
    assert found(engine) == sorted(f"p{i}" for i in range(300))
    assert documents(search) == 300


# --- The server -----------------------------------------------------------------------------------------


def test_a_server_without_search_is_told_with_the_cure(redis_client: redis.Redis, redis_url: str) -> None:
    shop = Shop(Catalogue(redis_client))
    shop.put(Product(id="p", images=["a"]))
    server = SearchServer(redis_url)
    assert not server.capabilities.has_search
    with pytest.raises(FailedPrecondition, match=r"has no search.*MAGPIE_SEARCH_REDIS_URL"):
        found(RedisEngine(shop.catalogue, server))


def test_capabilities_are_seen(search_url: str, search_cluster_urls: list[str]) -> None:
    one = SearchServer(search_url).capabilities
    assert one.has_search and not one.is_cluster and one.product.startswith("Redis 8.")
    several = SearchServer(search_cluster_urls[0]).capabilities
    assert several.has_search and several.is_cluster and not several.answers_for_all
    assert "every primary is asked" in several.lines()["nodes"]


def test_a_server_that_goes_and_comes_back_empty(redis_client: redis.Redis, tmp_path: Path) -> None:
    shop = Shop(Catalogue(redis_client))
    shop.put(Product(id="p", images=["a"]))
    port, module = free_port(), ("--loadmodule", str(search_module()))
    engine = RedisEngine(shop.catalogue, SearchServer(f"redis://127.0.0.1:{port}/0", FLAT))
    with pytest.raises(Unavailable):
        found(engine)
    for _ in range(2):
        with redis_process(tmp_path, *module, port=port):
            assert found(engine) == ["p"]
        with pytest.raises(Unavailable):
            found(engine)


def test_what_takes_too_long_for_a_search_is_for_migrate(
    redis_client: redis.Redis, search_url: str, search: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(Catalogue(redis_client))
    shop.put(Product(id="p", images=["a"]))
    engine = RedisEngine(shop.catalogue, SearchServer(search_url, FLAT))
    with monkeypatch.context() as patch:
        patch.setattr(redis_follower, "_PATIENCE_SECONDS", 0.0)
        with pytest.raises(Unavailable, match="magpie index migrate"):
            found(engine)
    engine.follower.compare("shop", BUNDLE)
    assert found(engine) == ["p"]


def test_a_lost_index_is_made_anew(redis_client: redis.Redis, search_url: str, search: redis.Redis) -> None:
    shop = Shop(Catalogue(redis_client))
    for i in range(50):
        shop.put(Product(id=f"p{i}", images=["a"]))
    engine = RedisEngine(shop.catalogue, SearchServer(search_url, FLAT))
    assert len(found(engine)) == 50
    for name in search.execute_command("FT._LIST"):
        search.execute_command("FT.DROPINDEX", name)
    assert len(found(engine)) == 50


def test_catalogue_and_documents_on_one_server_that_loses_all(search_url: str, search: redis.Redis) -> None:
    shop = Shop(Catalogue(search))
    engine = RedisEngine(shop.catalogue, SearchServer(search_url, FLAT))
    for number in range(3):
        shop.put(Product(id=f"p{number}", images=["a"]))
        assert found(engine) == [f"p{number}"]
        search.flushall()
        assert found(engine) == []


def test_objects_that_only_a_snapshot_has(
    redis_client: redis.Redis, search_url: str, search: redis.Redis, s3: Any, bucket: str, tmp_path: Path
) -> None:
    shop = Shop(Catalogue(redis_client))
    model = random_codes({"identity": 4})
    snapshots = Snapshots(s3, bucket, tmp_path)
    for i in range(5):  # each compaction lets go of what the one before has taken
        shop.put(Product(id=f"p{i}", images=["a"]), objects=2)
        compact(shop.catalogue, snapshots, model, "shop", BUNDLE)
    server = SearchServer(search_url, FLAT)
    with pytest.raises(FailedPrecondition, match="in a snapshot"):
        found(RedisEngine(shop.catalogue, server))
    engine = RedisEngine(shop.catalogue, server, ArchivedObjects(snapshots))
    assert found(engine) == sorted(f"p{i}" for i in range(5) for _ in range(2))


# --- The graph ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["", "price < 10", "price = 7"])
def test_recall_of_the_graph(
    redis_client: redis.Redis, search_url: str, search: redis.Redis, condition: str
) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 32))
    vectors = centres[rng.integers(0, 40, 1500)] + 0.8 * rng.standard_normal((1500, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    shop = Shop(Catalogue(redis_client))
    for i, vector in enumerate(vectors):
        shop.put(Product(id=f"p{i}", price=i % 100, images=["a"]), vector)
    engine = RedisEngine(shop.catalogue, SearchServer(search_url, VectorIndex("hnsw")))
    price = np.arange(1500) % 100
    rows = np.flatnonzero({"": price >= 0, "price < 10": price < 10, "price = 7": price == 7}[condition])
    recalls = []
    for query in vectors[:40]:
        answer = engine.find(
            "shop",
            BUNDLE,
            [{"identity": query}],
            parse(condition) if condition else None,
            10,
            {"identity": 1},
        )
        nearest = rows[np.argsort(-(vectors[rows] @ query))[:10]]
        hits = {candidate.product_id for candidate in answer.results[0]}
        assert len(hits) == 10
        recalls.append(len(hits & {f"p{row}" for row in nearest}) / 10)
    assert np.mean(recalls) >= 0.98
