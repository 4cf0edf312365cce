"""Ranking configs on a real local S3 and a real Redis."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import redis

from magpie.errors import Aborted, NotFound, Unavailable
from magpie.ranking.config import checksum, default_config, validate
from magpie.store.ranking_configs import RankingConfigs
from magpie.store.redis_connection import connect
from magpie.v1.ranking_config_pb2 import Boost, RankingConfig

SPACES = ("identity", "category", "similar")


@pytest.fixture
def make(s3: Any, bucket: str, redis_client: redis.Redis) -> Any:
    """Makes what one process has; all share S3 and Redis."""
    return lambda: RankingConfigs(s3, bucket, redis_client)


def config_of(text: str) -> RankingConfig:
    return validate(RankingConfig(filter=text), SPACES)


def version_keys(s3: Any, bucket: str) -> dict[str, bytes]:
    return {
        entry["Key"]: s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    }


def test_before_the_first_put_the_default_is_in_force(make: Any) -> None:
    config = make().current("shop")
    assert config.version == 0
    assert config.fusion == default_config().fusion
    assert make().get("shop") == config
    assert config.checksum == checksum(default_config())


def test_a_put_is_in_force_with_its_version_and_checksum(make: Any) -> None:
    configs = make()
    first = configs.put("shop", config_of("price < 5"))
    assert (first.version, first.filter, first.checksum) == (1, "price < 5", checksum(config_of("price < 5")))
    assert configs.current("shop") == first
    assert make().current("shop") == first
    second = configs.put("shop", config_of("price < 6"))
    assert second.version == 2
    assert [configs.get("shop", version).filter for version in (1, 2, 0)] == [
        "price < 5",
        "price < 6",
        "price < 6",
    ]
    for missing in (3, 99):
        with pytest.raises(NotFound):
            configs.get("shop", missing)
    with pytest.raises(NotFound):
        configs.get("other", 1)


def test_an_equal_config_makes_no_new_version(make: Any) -> None:
    configs = make()
    configs.put("shop", config_of("price < 5"))
    again = config_of("price < 5")
    again.version, again.checksum = 77, "whatever"
    assert configs.put("shop", again).version == 1
    assert make().put("other", validate(RankingConfig(), SPACES)).version == 0  # the default


def test_an_earlier_version_can_be_put_again(make: Any) -> None:
    configs = make()
    for text in ("price < 5", "price < 6"):
        configs.put("shop", config_of(text))
    rolled_back = configs.put("shop", configs.get("shop", 1))
    assert (rolled_back.version, rolled_back.filter) == (3, "price < 5")


def test_versions_never_change_on_s3(make: Any, s3: Any, bucket: str) -> None:
    configs = make()
    seen: dict[str, bytes] = {}
    for price in range(4):
        configs.put("shop", config_of(f"price < {price}"))
        now = version_keys(s3, bucket)
        now.pop("customers/shop/ranking/current.json")
        assert now.items() >= seen.items()
        seen = now
    assert sorted(seen) == [f"customers/shop/ranking/0000000{version}.json" for version in (1, 2, 3)]


def test_a_put_for_another_version_is_aborted(make: Any) -> None:
    configs = make()
    with pytest.raises(Aborted, match="version 0 is in force"):
        configs.put("shop", config_of("price < 5"), expected_version=1)
    assert configs.put("shop", config_of("price < 5"), expected_version=0).version == 1
    with pytest.raises(Aborted, match="version 1 is in force"):
        configs.put("shop", config_of("price < 6"), expected_version=0)
    assert configs.get("shop").filter == "price < 5"
    assert configs.put("shop", config_of("price < 6"), expected_version=1).version == 2


@pytest.mark.parametrize("before", [0, 1], ids=["first version", "later version"])
def test_of_two_writers_of_the_same_version_one_wins(make: Any, before: int) -> None:
    for round_ in range(5):
        customer = f"shop-{round_}"
        if before:
            make().put(customer, config_of("price < 0"))
        start = Barrier(2)

        def write(text: str, customer: str = customer, start: Barrier = start) -> RankingConfig | None:
            configs = make()
            start.wait()
            try:
                won: RankingConfig = configs.put(customer, config_of(text), expected_version=before)
            except Aborted:
                return None
            return won

        with ThreadPoolExecutor(2) as pool:
            written = [won for won in pool.map(write, ("price < 1", "price < 2")) if won]
        assert len(written) == 1
        assert make().get(customer) == written[0]
        assert make().current(customer) == written[0]


def test_writers_without_an_expected_version_all_come_through(make: Any) -> None:
    texts = [f"price < {price}" for price in (1, 2, 3)]
    with ThreadPoolExecutor(3) as pool:
        written = list(pool.map(lambda text: make().put("shop", config_of(text)), texts))
    assert sorted(config.version for config in written) == [1, 2, 3]
    for config in written:
        assert make().get("shop", config.version) == config
    assert make().current("shop").version == 3


def test_another_process_has_it_within_a_second(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr("magpie.store.ranking_configs.time.monotonic", lambda: clock)
    writer, reader = make(), make()
    assert reader.current("shop").version == 0
    writer.put("shop", config_of("price < 5"))
    assert reader.current("shop").version == 0  # held in process
    clock += 1.0
    assert reader.current("shop").filter == "price < 5"


def test_a_late_writer_of_the_cache_does_not_bring_back_an_old_version(
    make: Any, redis_client: redis.Redis
) -> None:
    configs = make()
    old = configs.put("shop", config_of("price < 5"))
    new = configs.put("shop", config_of("price < 6"))
    configs._cache("shop", old)  # as by a process that was held up between S3 and Redis
    assert make().current("shop") == new
    redis_client.flushall()
    assert make().current("shop") == new  # from S3


def test_a_put_that_died_before_the_cache_is_mended_by_the_next(
    make: Any, s3: Any, bucket: str, redis_client: redis.Redis
) -> None:
    configs = make()
    configs.put("shop", config_of("price < 5"))
    stale: Any = redis_client.hgetall("magpie:{shop}:ranking")
    configs.put("shop", config_of("price < 6"))
    redis_client.hset("magpie:{shop}:ranking", mapping=stale)
    assert make().current("shop").version == 1
    assert make().put("shop", config_of("price < 6")).version == 2
    assert make().current("shop").version == 2


def test_customers_do_not_touch_one_another(make: Any) -> None:
    configs = make()
    configs.put("ours", config_of("price < 5"))
    theirs = configs.current("theirs")
    configs.put("ours", config_of("price < 6"))
    assert make().current("theirs") == theirs
    assert make().get("theirs").version == 0


def test_the_bundles_config_is_in_force_until_the_first_put(
    s3: Any, bucket: str, redis_client: redis.Redis, make: Any
) -> None:
    fitted = config_of("stock > 0")
    fitted.version, fitted.checksum = 7, checksum(fitted)  # the bundle's own count
    configs = RankingConfigs(s3, bucket, redis_client, lambda _bundle: {"shop": fitted})
    for config in (configs.current("shop"), configs.get("shop")):
        assert (config.version, config.filter, config.checksum) == (0, "stock > 0", checksum(fitted))
    assert configs.put("shop", config_of("stock > 0")).version == 0  # equal to what is in force
    put = configs.put("shop", config_of("price < 5"), expected_version=0)
    assert (put.version, configs.get("shop").filter) == (1, "price < 5")
    assert RankingConfigs(s3, bucket, redis_client, lambda _bundle: {"shop": fitted}).current("shop") == put
    assert configs.put("shop", validate(RankingConfig(), SPACES)).fusion == default_config().fusion
    with pytest.raises(NotFound):
        configs.get("shop", 7)


def test_the_bundles_config_of_one_customer_is_nobody_elses(
    s3: Any, bucket: str, redis_client: redis.Redis, make: Any
) -> None:
    before = {customer: make().current(customer) for customer in ("shop-2", "s")}
    make().put("with-its-own", config_of("price < 5"))
    before["with-its-own"] = make().current("with-its-own")
    redis_client.flushall()
    configs = RankingConfigs(s3, bucket, redis_client, lambda _bundle: {"shop": config_of("stock > 0")})
    assert configs.current("shop").filter == "stock > 0"
    configs.put("shop", config_of("stock > 1"))
    for customer, config in before.items():
        assert configs.current(customer) == config
        assert configs.get(customer) == config


def test_processes_of_two_bundles_do_not_get_each_others_configs(
    s3: Any, bucket: str, redis_client: redis.Redis
) -> None:
    old = RankingConfigs(s3, bucket, redis_client, lambda _bundle: {"shop": config_of("stock > 0")})
    new = RankingConfigs(s3, bucket, redis_client, lambda _bundle: {"shop": config_of("stock > 1")})
    without = RankingConfigs(s3, bucket, redis_client)
    assert old.current("shop").filter == "stock > 0"  # now Redis has an entry
    assert new.current("shop").filter == "stock > 1"
    assert without.current("shop").fusion == default_config().fusion
    put = new.put("shop", config_of("price < 5"))
    for bundled in ({"shop": config_of("stock > 0")}, {"shop": config_of("stock > 1")}, {}):
        assert (
            RankingConfigs(s3, bucket, redis_client, lambda _bundle, configs=bundled: configs).current("shop")
            == put
        )


def test_all_fields_come_back(make: Any) -> None:
    config = RankingConfig(
        filter="stock > 0",
        boosts=[Boost(filter="category = 'Saft'", weight=-0.125, name="Säfte")],
        group_variants=True,
        near_duplicate_similarity=0.95,
        min_score=0.0,
        min_probability=0.0,
    )
    put = make().put("shop", validate(config, SPACES, calibrated=True))
    read = make().get("shop")
    assert read == put
    assert read.HasField("min_score")
    assert read.HasField("min_probability")
    assert read.boosts[0].name == "Säfte"


def test_while_redis_is_away_a_put_says_so(s3: Any, bucket: str) -> None:
    away = RankingConfigs(s3, bucket, connect("redis://127.0.0.1:1/0"))
    assert away.current("shop").version == 0  # S3 knows
    with pytest.raises(Unavailable):
        away.put("shop", config_of("price < 5"))
