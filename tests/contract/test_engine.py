"""What every engine must do, against brute force. A new engine is one more parameter of `new_engine`."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from magpie.errors import Aborted, FailedPrecondition, InvalidArgument, Unavailable
from magpie.index.compact import CompactEngine
from magpie.index.compaction import compact
from magpie.index.engine import Engine, Found, Query, Weights
from magpie.index.filter import parse
from magpie.index.filter_terms import Filter
from magpie.index.redis_engine import RedisEngine
from magpie.index.redis_schema import VectorIndex
from magpie.index.search_server import SearchServer
from magpie.store.catalogue import Catalogue
from magpie.store.redis_connection import connect
from magpie.store.snapshots import Snapshots
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Box, DetectedObject, EmbeddedObject, Vector
from magpie.v1.product_pb2 import AttributeValue, Product
from magpie.v1.search_pb2 import Candidate
from tests.random_codes import random_codes

BUNDLE = "default@1"
SPACES = {"identity": 8, "category": 4, "similar": 4}
NewEngine = Callable[[], Engine]
Vectors = dict[str, NDArray[np.float32]]
Key = tuple[str, str, float]  # product, sha256, the box's left edge


@pytest.fixture(params=["compact", "compacted", "redis", "redis-cluster"])
def new_engine(request: pytest.FixtureRequest, redis_client: redis.Redis, tmp_path: Path) -> NewEngine:
    """Makes engines over one and the same catalogue, as processes of their own would have them."""
    match request.param:
        case "compact":
            return lambda: CompactEngine(Catalogue(redis_client))
        case "compacted":
            s3, bucket = request.getfixturevalue("s3"), request.getfixturevalue("bucket")
            folders = itertools.count()
            return lambda: Compacted(
                Catalogue(redis_client), Snapshots(s3, bucket, tmp_path / str(next(folders)))
            )
        case "redis" | "redis-cluster" as kind:
            # A server of its own, which no flush of the catalogue's reaches.
            if kind == "redis":
                urls = [str(request.getfixturevalue("search_url"))]
            else:
                urls = list(request.getfixturevalue("search_cluster_urls"))
            for url in urls:
                with connect(url) as client:
                    client.flushall()
            flat = VectorIndex("flat")
            return lambda: RedisEngine(Catalogue(redis_client), SearchServer(urls[0], flat))
    raise ValueError(request.param)


class Compacted(CompactEngine):
    """Compacts before every answer."""

    def __init__(self, catalogue: Catalogue, snapshots: Snapshots) -> None:
        super().__init__(catalogue, snapshots)
        self.parts = catalogue, snapshots

    def find(
        self,
        customer: str,
        bundle: str,
        queries: Sequence[Query],
        condition: Filter | None,
        limit: int,
        weights: Weights | None = None,
    ) -> Found:
        model = random_codes({space: len(vector) for space, vector in queries[0].items()})
        with suppress(Aborted):  # another engine of the test was faster
            compact(*self.parts, model, customer, bundle)
        return super().find(customer, bundle, queries, condition, limit, weights)


@pytest.fixture
def engine(new_engine: NewEngine) -> Engine:
    return new_engine()


@pytest.fixture
def shop(redis_client: redis.Redis) -> Shop:
    return Shop(Catalogue(redis_client))


def unit(rng: np.random.Generator) -> Vectors:
    """Vectors that int8 numbers and a scale hold without rounding."""
    vectors = {}
    for space, dimension in SPACES.items():
        whole = rng.integers(-127, 128, dimension)
        whole[rng.integers(dimension)] = 127
        vectors[space] = (whole / np.linalg.norm(whole)).astype(np.float32)
    return vectors


@dataclass
class Shop:
    """Writes to one customer's catalogue, and remembers what a search must find."""

    catalogue: Catalogue
    customer: str = "shop"
    seed: int = 0
    products: dict[str, Product] = field(default_factory=dict)
    objects: dict[tuple[str, str], list[Vectors]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def upsert(self, product: Product) -> None:
        self.catalogue.upsert_products(self.customer, [product], BUNDLE)
        self.products[product.id] = product
        for image in [i for i in self.objects if i[0] == product.id and i[1] not in product.images]:
            del self.objects[image]

    def delete(self, *ids: str) -> None:
        self.catalogue.delete_products(self.customer, ids)
        for id_ in ids:
            self.products.pop(id_, None)
        for image in [i for i in self.objects if i[0] in ids]:
            del self.objects[image]

    def index(self, product_id: str, sha256: str, count: int = 1) -> None:
        vectors = [unit(self.rng) for _ in range(count)]
        written = self.catalogue.write_objects(event(self.customer, product_id, sha256, vectors))
        listed = product_id in self.products and sha256 in self.products[product_id].images
        assert written == (count if listed else 0)
        if listed:
            self.objects[product_id, sha256] = vectors

    def add(self, product: Product, count: int = 1) -> None:
        self.upsert(product)
        for sha256 in product.images:
            self.index(product.id, sha256, count)

    def query(self) -> Vectors:
        return unit(self.rng)


def event(
    customer: str, product_id: str, sha256: str, objects: Sequence[Vectors], bundle: str = BUNDLE
) -> ObjectsEmbedded:
    return ObjectsEmbedded(
        image=IngestedImage(event_id="e", customer=customer, product_id=product_id, sha256=sha256),
        objects=[
            EmbeddedObject(
                object=DetectedObject(box=Box(x0=row / 16, y0=0.25, x1=1, y1=0.75)),
                vectors=[
                    Vector(space=space, values=v.astype("<f4").tobytes()) for space, v in vectors.items()
                ],
            )
            for row, vectors in enumerate(objects)
        ],
        bundle=bundle,
    )


def brute_force(
    shop: Shop, query: Vectors, condition: str, limit: int, weights: Weights | None
) -> dict[Key, dict[str, float]]:
    """One object at a time, in float64."""
    filter_ = parse(condition) if condition else None
    similarity: dict[Key, dict[str, float]] = {}
    for (product_id, sha256), objects in shop.objects.items():
        if filter_ is None or filter_.matches(shop.products[product_id]):
            for row, vectors in enumerate(objects):
                similarity[product_id, sha256, row / 16] = {
                    space: sum(float(a) * float(b) for a, b in zip(query[space], v, strict=True))
                    for space, v in vectors.items()
                }
    if weights is not None:
        fused = {key: sum(w * of[space] for space, w in weights.items()) for key, of in similarity.items()}
        return {key: similarity[key] for key in sorted(fused, key=lambda key: -fused[key])[:limit]}
    nearest: set[Key] = set()
    for space in SPACES:
        nearest |= set(sorted(similarity, key=lambda key: -similarity[key][space])[:limit])
    return {key: similarity[key] for key in nearest}


def key_of(candidate: Candidate) -> Key:
    return candidate.product_id, candidate.image_sha256, candidate.box.x0


def check(
    engine: Engine,
    shop: Shop,
    condition: str = "",
    limit: int = 100,
    queries: int = 1,
    weights: Weights | None = None,
) -> int:
    """Compares one answer with brute force. Returns the number of candidates."""
    asked = [shop.query() for _ in range(queries)]
    filter_ = parse(condition) if condition else None
    answer = engine.find(shop.customer, BUNDLE, asked, filter_, limit, weights)
    results, products = answer.results, answer.products
    assert len(results) == queries and not answer.stale
    for query, candidates in zip(asked, results, strict=True):
        expected = brute_force(shop, query, condition, limit, weights)
        assert sorted(map(key_of, candidates)) == sorted(expected)
        for candidate in candidates:
            product_id, sha256, left = key = key_of(candidate)
            assert dict(candidate.similarity) == pytest.approx(expected[key], abs=1e-5)
            vectors = shop.objects[product_id, sha256][int(left * 16)]
            assert np.frombuffer(candidate.identity, "<f4") == pytest.approx(vectors["identity"], abs=1e-6)
            assert (candidate.box.y0, candidate.box.x1, candidate.box.y1) == (0.25, 1, 0.75)
    named = {candidate.product_id for candidates in results for candidate in candidates}
    assert sorted(product.id for product in products) == sorted(named)
    assert all(product == shop.products[product.id] for product in products)
    return sum(map(len, results))


def test_an_empty_catalogue_has_no_candidates(engine: Engine, shop: Shop) -> None:
    assert engine.find("shop", BUNDLE, [shop.query(), shop.query()], None, 10) == Found([[], []], [])
    shop.upsert(Product(id="p1", images=["a"]))
    assert engine.find("shop", BUNDLE, [shop.query()], None, 10) == Found([[]], [])


@pytest.mark.parametrize("limit", [1, 3, 1000])
@pytest.mark.parametrize(
    "condition", ["", "price < 10", "price < 190", "colour = 'red'", "id = 'p7'", "price < 0"]
)
def test_equal_to_brute_force_under_any_filter(
    engine: Engine, shop: Shop, condition: str, limit: int
) -> None:
    for i in range(200):
        colour = AttributeValue(text="red" if i % 3 else "blue")
        shop.add(Product(id=f"p{i}", price=i, attributes={"colour": colour}, images=["a"]), count=1 + i % 2)
    found = check(engine, shop, condition, limit)
    assert bool(found) == (condition != "price < 0")
    check(engine, shop, condition, limit, queries=11)
    check(engine, shop, condition, limit, queries=2, weights={"identity": 3, "similar": 1})


@pytest.mark.parametrize(
    "weights", [{}, {"identity": 0}, {"identity": -1, "similar": 2}, {"other": 1}, {"identity": float("nan")}]
)
def test_weights_that_do_not_fit_are_refused(engine: Engine, shop: Shop, weights: Weights) -> None:
    shop.add(Product(id="p1", images=["a"]))
    with pytest.raises(InvalidArgument, match="weights"):
        engine.find("shop", BUNDLE, [shop.query()], None, 10, weights)


def test_every_kind_of_write_is_seen_by_the_next_answer_of_every_process(
    new_engine: NewEngine, shop: Shop
) -> None:
    one, two = new_engine(), new_engine()

    def both(condition: str = "") -> int:
        found = check(one, shop, condition)
        assert check(two, shop, condition) == found
        return found

    shop.add(Product(id="p1", price=1, images=["a", "b"]), count=2)
    shop.add(Product(id="p2", price=2, images=["a"]))
    assert both() == 5
    assert both("price = 1") == 4
    shop.upsert(Product(id="p1", price=3, images=["a", "b"]))  # an attribute
    assert both("price = 1") == 0
    assert both("price = 3") == 4
    shop.upsert(Product(id="p1", price=3, images=["b", "c"]))  # another picture
    assert both() == 3
    shop.index("p1", "c", count=3)
    assert both() == 6
    shop.index("p1", "c", count=1)  # the same picture again, with fewer objects
    assert both() == 4
    shop.index("p1", "a")  # a late event of a picture that is no longer listed
    assert both() == 4
    shop.delete("p1", "p2")
    assert both() == 0
    shop.index("p1", "b")  # a late event of a product that is gone
    assert both() == 0
    shop.upsert(Product(id="p1", images=["b"]))  # it comes back, without the objects that it had
    assert both() == 0
    shop.index("p1", "b")
    assert both() == 1


steps = st.lists(
    st.tuples(
        st.sampled_from(["upsert", "upsert", "index", "index", "index", "delete", "search", "flush"]),
        st.integers(0, 3),  # product
        st.integers(0, 7),  # its pictures, as bits; or the one that is indexed
        st.sampled_from(["", "price < 2", "not exists price", "colour = 'red' or price >= 2"]),
    ),
    max_size=40,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_any_sequence_of_writes_and_searches(
    new_engine: NewEngine, redis_client: redis.Redis, sequence: list[tuple[str, int, int, str]]
) -> None:
    redis_client.flushall()
    one, two = new_engine(), new_engine()
    shops = [Shop(Catalogue(redis_client), customer, seed) for seed, customer in enumerate(["shop", "other"])]
    for number, (action, product, bits, condition) in enumerate(sequence):
        shop = shops[number % 2]  # both customers have the same product ids
        id_ = f"p{product}"
        match action:
            case "upsert":
                images = [name for bit, name in enumerate("abc") if bits >> bit & 1]
                price = None if bits == 0 else bits % 4
                red = {"colour": AttributeValue(text="red")} if bits & 4 else {}
                shop.upsert(Product(id=id_, price=price, attributes=red, images=images))
            case "index":
                shop.index(id_, "abc"[bits % 3], count=1 + bits % 2)
            case "delete":
                shop.delete(id_)
            case "search":
                check(one, shop, condition, limit=1 + bits)
            case "flush":  # Redis loses all
                redis_client.flushall()
                shops = [Shop(shop.catalogue, shop.customer, number + 2) for shop in shops]
    for shop in shops:
        check(one, shop, limit=2)
        check(two, shop, limit=2)


def test_many_replacements_do_not_change_the_answer(engine: Engine, shop: Shop) -> None:
    shop.add(Product(id="steady", price=0, images=["a"]))
    check(engine, shop)
    for round_ in range(30):
        for i in range(100):
            shop.add(Product(id=f"p{i}", price=round_, images=["a"]), count=2)
        assert check(engine, shop, limit=1000) == 201
        assert check(engine, shop, f"price = {round_} and id != 'steady'", limit=1000) == 200


def test_an_answer_is_of_one_moment_while_others_write(
    new_engine: NewEngine, redis_client: redis.Redis
) -> None:
    """Writers flip all products between two prices, each with its vector; no answer may mix old and new."""
    catalogue = Catalogue(redis_client)
    rng = np.random.default_rng(0)
    vectors = unit(rng)
    ids = [f"p{i}" for i in range(20)]

    def write(price: int) -> None:
        catalogue.upsert_products("shop", [Product(id=i, price=price, images=["a"]) for i in ids], BUNDLE)

    write(0)
    for id_ in ids:
        catalogue.write_objects(event("shop", id_, "a", [vectors]))
    engine = new_engine()
    stop = threading.Event()
    failures: list[str] = []

    def writer() -> None:
        price = 0
        while not stop.is_set():
            price += 1
            write(price)
            extra = f"extra{price % 3}"
            catalogue.upsert_products("shop", [Product(id=extra, price=-1, images=["a"])], BUNDLE)
            catalogue.write_objects(event("shop", extra, "a", [vectors]))
            catalogue.delete_products("shop", [extra])

    def reader() -> None:
        for _ in range(60):
            try:
                answer = engine.find("shop", BUNDLE, [vectors], parse("price >= 0"), 1000)
            except Exception as error:
                failures.append(repr(error))
                return
            found = sorted(candidate.product_id for candidate in answer.results[0])
            if found != sorted(ids) or len({product.price for product in answer.products}) != 1:
                failures.append(f"{found} {answer.products}")

    readers = [threading.Thread(target=reader) for _ in range(4)]
    writers = [threading.Thread(target=writer) for _ in range(2)]
    for thread in readers + writers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    for thread in writers:
        thread.join()
    assert failures == []
    write(1000)
    assert len(engine.find("shop", BUNDLE, [vectors], parse("price = 1000"), 1000).products) == 20


def test_queries_that_do_not_fit_are_refused(engine: Engine, shop: Shop) -> None:
    shop.add(Product(id="p1", images=["a"]))
    good = shop.query()
    missing = {space: good[space] for space in ("identity", "category")}
    longer = good | {"similar": np.ones(5, np.float32)}
    infinite = good | {"similar": np.array([np.inf, 0, 0, 0], np.float32)}
    for bad in (missing, longer, infinite, good | {"other": good["similar"]}):
        with pytest.raises(InvalidArgument, match=r"queries\[1\]\.vectors"):
            engine.find("shop", BUNDLE, [good, bad], None, 10)


def test_another_bundle_is_refused_but_both_live_during_a_change_over(engine: Engine, shop: Shop) -> None:
    shop.add(Product(id="p1", images=["a"]))
    with pytest.raises(FailedPrecondition, match=r"default@1, none of next@1"):
        engine.find("shop", "next@1", [shop.query()], None, 10)
    vectors = {"identity": np.array([1, 0], np.float32)}
    shop.catalogue.write_objects(event("shop", "p1", "a", [vectors], bundle="next@1"))
    found = engine.find("shop", "next@1", [vectors], None, 10)
    assert [dict(c.similarity) for c in found.results[0]] == [{"identity": 1.0}]
    assert check(engine, shop) == 1


def test_dimensions_may_change_once_the_last_object_is_gone(engine: Engine, shop: Shop) -> None:
    shop.add(Product(id="p1", images=["a"]))
    check(engine, shop)
    shop.delete("p1")
    shop.upsert(Product(id="p1", images=["a"]))
    vectors = {"identity": np.array([0, 1, 0], np.float32)}
    shop.catalogue.write_objects(event("shop", "p1", "a", [vectors]))
    found = engine.find("shop", BUNDLE, [vectors], None, 10)
    assert [dict(c.similarity) for c in found.results[0]] == [{"identity": 1.0}]


def test_compact_forgets_the_customers_searched_longest_ago(redis_client: redis.Redis) -> None:
    engine = CompactEngine(Catalogue(redis_client), capacity_bytes=1)
    shops = [Shop(Catalogue(redis_client), customer) for customer in ("one", "two", "three")]
    for shop in shops:
        shop.add(Product(id="p1", images=["a"]))
    for shop in [*shops, *shops]:
        assert check(engine, shop) == 1
        assert list(engine._indexes) == [(shop.customer, BUNDLE)]


def test_compact_without_redis_is_unavailable() -> None:
    engine = CompactEngine(Catalogue(connect("redis://127.0.0.1:1/0")))
    with pytest.raises(Unavailable):
        engine.find("shop", BUNDLE, [unit(np.random.default_rng(0))], None, 10)
