"""Both crop stores keep one contract: the one in memory, and the one in a real Redis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import redis

from magpie.errors import Unavailable
from magpie.geometry import WHOLE_IMAGE, Box
from magpie.store.crops import RedisCropStore
from magpie.vision.crop_store import CropStore, MemoryCropStore

SHA = "ab" * 32
BOXES = [Box(0.1, 0.2, 0.3, 0.4), Box(1 / 3, 0.0, 2 / 3, 1.0), WHOLE_IMAGE]
SQUARES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
SQUARE_BYTES = 16 * 16 * 3


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> CropStore:
    if request.param == "memory":
        return MemoryCropStore()
    return RedisCropStore(request.getfixturevalue("redis_client"), bundle="tiny@1", size=16)


def test_gives_back_what_was_put_in_the_order_asked_for(store: CropStore) -> None:
    store.put("shop", SHA, BOXES, SQUARES)
    found = store.get("shop", SHA, [BOXES[2], BOXES[0]])
    assert found is not None
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, SQUARES[[2, 0]])


def test_boxes_are_found_by_their_float32_values(store: CropStore) -> None:
    store.put("shop", SHA, BOXES, SQUARES)
    through_proto = [Box(*(float(np.float32(value)) for value in box)) for box in BOXES]
    assert through_proto[0] != BOXES[0]
    np.testing.assert_array_equal(store.get("shop", SHA, through_proto), SQUARES)


def test_a_hash_does_not_open_another_customer_s_pixels(store: CropStore) -> None:
    store.put("shop", SHA, BOXES, SQUARES)
    assert store.get("rival", SHA, BOXES) is None


def test_a_miss_in_one_box_is_a_miss(store: CropStore) -> None:
    store.put("shop", SHA, BOXES[:2], SQUARES[:2])
    assert store.get("shop", SHA, BOXES) is None
    assert store.get("shop", "cd" * 32, BOXES) is None
    assert store.get("shop", SHA, []) is None


def test_a_second_put_adds_boxes(store: CropStore) -> None:
    store.put("shop", SHA, BOXES[:1], SQUARES[:1])
    store.put("shop", SHA, BOXES[1:], SQUARES[1:])
    np.testing.assert_array_equal(store.get("shop", SHA, BOXES), SQUARES)


def test_discard_forgets_one_photo(store: CropStore) -> None:
    store.put("shop", SHA, BOXES, SQUARES)
    store.put("shop", "cd" * 32, BOXES, SQUARES)
    store.discard("shop", SHA)
    store.discard("shop", SHA)
    assert store.get("shop", SHA, BOXES) is None
    assert store.get("shop", "cd" * 32, BOXES) is not None


def test_later_changes_of_the_pixels_do_not_reach_the_store(store: CropStore) -> None:
    squares = SQUARES.copy()
    store.put("shop", SHA, BOXES, squares)
    squares[:] = 0
    np.testing.assert_array_equal(store.get("shop", SHA, BOXES), SQUARES)


def test_memory_forgets_what_was_used_longest_ago() -> None:
    store = MemoryCropStore(capacity=2 * SQUARE_BYTES)
    for sha in ("a", "b"):
        store.put("shop", sha, BOXES[:1], SQUARES[:1])
    assert store.get("shop", "a", BOXES[:1]) is not None
    store.put("shop", "c", BOXES[:1], SQUARES[:1])
    kept = [sha for sha in "abc" if store.get("shop", sha, BOXES[:1]) is not None]
    assert kept == ["a", "c"]
    store.put("shop", "d", BOXES, SQUARES)  # alone larger than the store
    assert [sha for sha in "abcd" if store.get("shop", sha, BOXES[:1]) is not None] == []
    store.put("shop", "e", BOXES[:2], SQUARES[:2])  # the whole capacity is free again
    assert store.get("shop", "e", BOXES[:2]) is not None


def test_redis_keys_are_scoped_and_expire(redis_client: redis.Redis) -> None:
    store = RedisCropStore(redis_client, bundle="tiny@1", size=16, time_to_live=900)
    store.put("shop", SHA, BOXES, SQUARES)
    key = f"magpie:{{shop}}:crops:tiny@1:{SHA}"
    assert redis_client.keys() == [key.encode()]
    assert 890 <= redis_client.ttl(key) <= 900
    assert RedisCropStore(redis_client, bundle="tiny@2", size=16).get("shop", SHA, BOXES) is None


@pytest.fixture
def full_redis(redis_client: redis.Redis) -> redis.Redis:
    redis_client.config_set("maxmemory", 1)
    yield redis_client
    redis_client.config_set("maxmemory", 0)


def test_a_full_redis_keeps_nothing_and_says_so(
    full_redis: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisCropStore(full_redis, bundle="tiny@1", size=16)
    store.put("shop", SHA, BOXES, SQUARES)
    assert store.get("shop", SHA, BOXES) is None
    assert "embedding will decode again" in caplog.text


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.put("shop", SHA, BOXES, SQUARES),
        lambda store: store.get("shop", SHA, BOXES),
        lambda store: store.discard("shop", SHA),
    ],
)
def test_a_redis_that_is_away_is_unavailable(call: Callable[[CropStore], object]) -> None:
    with redis.Redis(port=1, socket_connect_timeout=1, retry=None) as nobody, pytest.raises(Unavailable):
        call(RedisCropStore(nobody, bundle="tiny@1", size=16))
