"""Moving a catalogue from engine to engine: both are asked; a killed migration goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from local.migration import Migration
from magpie.index.agreement import sample_queries
from magpie.index.archived_objects import ArchivedObjects
from magpie.index.compact import CompactEngine
from magpie.index.redis_engine import RedisEngine
from magpie.index.redis_schema import VectorIndex
from magpie.index.search_server import SearchServer
from magpie.store.catalogue import Catalogue
from magpie.store.snapshots import Snapshots
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.product_pb2 import Product

BUNDLE = "default@1"
SPACES = {"identity": 16, "category": 8}


def put(catalogue: Catalogue, customer: str, count: int) -> None:
    rng = np.random.default_rng(count)
    products = [Product(id=f"p{i}", category=f"c{i % 3}", images=["a"]) for i in range(count)]
    catalogue.upsert_products(customer, products, BUNDLE)
    for product in products:
        vectors = []
        for space, dimension in SPACES.items():
            vector = rng.standard_normal(dimension)
            values = (vector / np.linalg.norm(vector)).astype("<f4").tobytes()
            vectors.append(Vector(space=space, values=values))
        image = IngestedImage(event_id="e", customer=customer, product_id=product.id, sha256="a")
        catalogue.write_objects(
            ObjectsEmbedded(image=image, objects=[EmbeddedObject(vectors=vectors)], bundle=BUNDLE)
        )


@pytest.fixture
def migration(redis_client: redis.Redis, search_url: str, s3: Any, bucket: str, tmp_path: Path) -> Migration:
    with redis.Redis.from_url(search_url) as search:
        search.flushall()
    return migration_of(redis_client, search_url, Snapshots(s3, bucket, tmp_path))


def migration_of(client: redis.Redis, search_url: str, snapshots: Snapshots) -> Migration:
    catalogue, archive = Catalogue(client), ArchivedObjects(snapshots)
    server = SearchServer(search_url, VectorIndex("flat"))
    exact = CompactEngine(catalogue, snapshots, shortlist=None)
    return Migration(catalogue, archive, exact, RedisEngine(catalogue, server, archive))


def test_every_customer_is_moved_and_found_again(migration: Migration, search_url: str) -> None:
    put(migration.catalogue, "one", 40)
    put(migration.catalogue, "two", 7)
    indexes = migration.indexes([], "")
    assert indexes == [("one", BUNDLE, 40), ("two", BUNDLE, 7)]
    assert migration.indexes(["two"], BUNDLE) == [("two", BUNDLE, 7)]
    assert migration.indexes(["three"], "") == migration.indexes([], "other@1") == []
    for customer, bundle, images in indexes:
        seen: list[int] = []
        migration.fill(customer, bundle, seen.append)
        assert sum(seen) == images
        moved = migration.compare(customer, bundle, images, 20)
        assert moved.agreement.queries == min(20, images)
        assert moved.agreement.share == moved.agreement.filtered_share == 1
    assert migration.drop([], BUNDLE) == 47
    with redis.Redis.from_url(search_url, protocol=2) as search:
        assert search.execute_command("FT._LIST") == []
        assert not list(search.scan_iter(match="magpie-object:*"))


def test_half_of_the_sample_has_a_filter(migration: Migration) -> None:
    put(migration.catalogue, "one", 40)
    queries = sample_queries(migration.catalogue, None, "one", BUNDLE, 30)
    assert sum(query.condition is not None for query in queries) == 15
    for query in queries:
        assert {space: len(vector) for space, vector in query.query.items()} == SPACES
        assert all(np.linalg.norm(vector) == pytest.approx(1) for vector in query.query.values())


def test_what_differs_is_seen_and_mended(migration: Migration, search_url: str) -> None:
    put(migration.catalogue, "one", 60)
    migration.fill("one", BUNDLE, lambda _: None)
    with redis.Redis.from_url(search_url) as search:
        keys = list(search.scan_iter(match="magpie-object:*"))
        search.delete(*keys[::3])
        assert migration.compare("one", BUNDLE, 60, 50).agreement.share < 0.9
        migration.fill("one", BUNDLE, lambda _: None)
        assert migration.compare("one", BUNDLE, 60, 50).agreement.share == 1


def test_dropping_leaves_nothing_and_nobody_else_s_untouched(migration: Migration, search_url: str) -> None:
    for customer in ("one", "two"):
        put(migration.catalogue, customer, 10)
        migration.fill(customer, BUNDLE, lambda _: None)
    assert migration.drop(["one"], "") == 10
    with redis.Redis.from_url(search_url) as search:
        owners = {key.split(b"{")[1].split(b"/")[0] for key in search.scan_iter(match="magpie-object:*")}
    assert owners == {b"two"}
    assert migration.compare("two", BUNDLE, 10, 5).agreement.share == 1


def fill(redis_url: str, search_url: str) -> None:
    catalogue = Catalogue(redis.Redis.from_url(redis_url))
    RedisEngine(catalogue, SearchServer(search_url, VectorIndex("flat"))).follower.compare("one", BUNDLE)


def test_a_killed_migration_goes_on_where_it_ended(
    migration: Migration, redis_url: str, search_url: str
) -> None:
    put(migration.catalogue, "one", 1500)
    process = multiprocessing.get_context("spawn").Process(target=fill, args=(redis_url, search_url))
    process.start()
    with redis.Redis.from_url(search_url) as search:
        while search.dbsize() < 300:
            assert process.is_alive()
            time.sleep(0.005)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        there = set(search.scan_iter(match="magpie-object:*", count=1000))
        assert 0 < len(there) < 1500
        written = search.info("commandstats")["cmdstat_hset"]["calls"]
        migration.fill("one", BUNDLE, lambda _: None)
        assert sum(1 for _ in search.scan_iter(match="magpie-object:*", count=1000)) == 1500
        assert search.info("commandstats")["cmdstat_hset"]["calls"] - written < 2 * (1500 - len(there)) + 500
    assert migration.compare("one", BUNDLE, 1500, 30).agreement.share == 1
