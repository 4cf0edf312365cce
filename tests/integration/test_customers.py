"""Customers and their API keys on a real Redis."""

from __future__ import annotations

import pytest
import redis

from magpie.errors import InvalidArgument, Unavailable
from magpie.store.customers import Customers
from magpie.store.redis_connection import connect


@pytest.fixture
def customers(redis_client: redis.Redis) -> Customers:
    return Customers(redis_client)


def test_a_key_belongs_to_its_customer(customers: Customers) -> None:
    first, second = customers.create("shop"), customers.create("other")
    assert len(first) == len("mk_") + 32
    assert first.startswith("mk_")
    assert first != second
    assert customers.customer_of(first) == "shop"
    assert customers.customer_of(second) == "other"
    for wrong in ("", "mk_", first[:-1], first.upper(), first + " "):
        assert customers.customer_of(wrong) is None
    assert customers.exists("shop")
    assert not customers.exists("nobody")
    assert customers.customers() == ["other", "shop"]


def test_redis_never_sees_a_key(customers: Customers, redis_client: redis.Redis) -> None:
    key = customers.create("shop")
    stored = b"".join(redis_client.dump(name) or b"" for name in redis_client.scan_iter())
    assert b"shop" in stored
    assert key.encode() not in stored
    assert key.removeprefix("mk_").encode() not in stored


def test_a_customer_can_have_several_keys(customers: Customers, redis_client: redis.Redis) -> None:
    first, second = customers.create("shop"), customers.create("shop")
    assert customers.customers() == ["shop"]
    assert customers.revoke(first)
    assert not customers.revoke(first)
    assert customers.customer_of(first) is None
    assert Customers(redis_client).customer_of(first) is None
    assert customers.customer_of(second) == "shop"
    assert customers.exists("shop")


def test_another_process_forgets_a_revoked_key(
    customers: Customers, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Customers(redis_client)
    key = customers.create("shop")
    assert other.customer_of(key) == "shop"
    customers.revoke(key)
    assert other.customer_of(key) == "shop"  # trusted for some seconds without asking Redis
    monkeypatch.setattr("magpie.store.customers.time.monotonic", lambda: 1e12)
    assert other.customer_of(key) is None


def test_a_new_key_holds_at_once_where_it_was_refused_before(
    customers: Customers, redis_client: redis.Redis
) -> None:
    other = Customers(redis_client)
    assert other.customer_of("mk_x") is None
    key = customers.create("shop")
    assert other.customer_of(key) == "shop"


@pytest.mark.parametrize("name", ["", "Shop", "-shop", "_shop", "a b", "a/b", "x" * 64, "shop\n", "{a}"])
def test_a_customer_needs_a_proper_name(customers: Customers, name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^customer: "):
        customers.create(name)
    assert not customers.exists(name)


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "x" * 63])
def test_proper_names(customers: Customers, name: str) -> None:
    assert customers.customer_of(customers.create(name)) == name


def test_while_redis_is_away_it_says_so() -> None:
    away = Customers(connect("redis://127.0.0.1:1/0"))
    with pytest.raises(Unavailable):
        away.customer_of("mk_x")
    with pytest.raises(Unavailable):
        away.create("shop")
