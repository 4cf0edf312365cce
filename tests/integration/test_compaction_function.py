"""The function of compaction, with a real Redis, a local S3 and the default bundle's hash model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from functions.compaction.app import handler
from local.lambda_context import LambdaContext
from magpie.bootstrap import Application, application
from magpie.errors import MagpieError, Unavailable
from magpie.index.compact import CompactEngine
from magpie.index.compaction import compact
from magpie.index.compaction_policy import Backlogs, Thresholds
from magpie.index.compaction_round import CompactionRound
from magpie.index.engine import Query
from magpie.index.hash_model import HashModel
from magpie.store.catalogue import Catalogue
from magpie.store.compaction_leases import CompactionLeases
from magpie.store.redis_connection import connect
from magpie.store.snapshots import Pointer, Snapshots
from magpie.telemetry import CompactionMetrics
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.product_pb2 import Product

CHANGES = 10  # from where on an index is due


@pytest.fixture
def app(
    monkeypatch: pytest.MonkeyPatch,
    redis_client: redis.Redis,
    redis_url: str,
    local_aws: str,
    bucket: str,
    tmp_path: Path,
) -> Iterator[Application]:
    """What the handler works with, by the environment alone."""
    environment = {
        "MAGPIE_REDIS_URL": redis_url,
        "MAGPIE_BUCKET": bucket,
        "MAGPIE_CACHE": str(tmp_path / "cache"),
        "MAGPIE_COMPACT_CHANGES": str(CHANGES),
        "AWS_ENDPOINT_URL": local_aws,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MAGPIE_BUNDLE", raising=False)
    application.cache_clear()
    yield application()
    application.cache_clear()


def invoke(seconds: float = 900) -> dict[str, int]:
    return handler({}, LambdaContext("magpie-compaction", seconds))


@dataclass
class Shop:
    """One customer, whose products `p0`, `p1` and so on have one object each, near a query of their own."""

    app: Application
    name: str
    vectors: list[dict[str, np.ndarray]]

    @property
    def bundle(self) -> str:
        return self.app.bundle.id

    def add(self, count: int) -> None:
        for _ in range(count):
            number = len(self.vectors)
            rng = np.random.default_rng([*self.name.encode(), number])
            spaces = {o.name: rng.standard_normal(o.dimension) for o in self.app.bundle.embedder_card.outputs}
            self.vectors.append({s: (v / np.linalg.norm(v)).astype(np.float32) for s, v in spaces.items()})
            image = IngestedImage(event_id="e", customer=self.name, product_id=f"p{number}", sha256=self.name)
            vectors = [Vector(space=s, values=v.astype("<f4").tobytes()) for s, v in self.vectors[-1].items()]
            self.app.catalogue.upsert_products(
                self.name, [Product(id=f"p{number}", images=[self.name])], self.bundle
            )
            written = self.app.catalogue.write_objects(
                ObjectsEmbedded(image=image, objects=[EmbeddedObject(vectors=vectors)], bundle=self.bundle)
            )
            assert written == 1

    def generation(self) -> int:
        return self.app.snapshots.pointer(self.name, self.bundle).generation

    def nearest(self, query: Query, folder: Path) -> tuple[str, str]:
        """Product and image of the best candidate, in a process that comes to it anew."""
        engine = CompactEngine(self.app.catalogue, Snapshots(self.app.s3, self.app.settings.bucket, folder))
        found = engine.find(self.name, self.bundle, [query], None, 1, {"identity": 1.0})
        assert not found.stale
        (best,) = found.results[0]
        return best.product_id, best.image_sha256

    def check(self, folder: Path) -> None:
        for number, query in enumerate(self.vectors):
            assert self.nearest(query, folder) == (f"p{number}", self.name)


def shops(app: Application, *names: str) -> list[Shop]:
    for name in names:
        app.customers.create(name)
    return [Shop(app, name, []) for name in names]


def test_who_is_due_is_compacted_and_nobody_else(app: Application, tmp_path: Path) -> None:
    large, other, small = shops(app, "large", "other", "small")
    large.add(20)
    other.add(6)  # two changes each
    small.add(2)
    assert invoke() == {"compacted": 2, "elsewhere": 0}
    assert (large.generation(), other.generation(), small.generation()) == (1, 1, 0)
    assert invoke() == {"compacted": 0, "elsewhere": 0}
    for shop in (large, other, small):  # they have the same product ids
        shop.check(tmp_path / "reader")
    assert not (tmp_path / "reader" / "small").exists()
    large.add(5)
    assert invoke() == {"compacted": 1, "elsewhere": 0}
    assert (large.generation(), other.generation()) == (2, 1)
    large.check(tmp_path / "reader")
    values: Any = app.redis.hvals(f"magpie:{{large}}:objects:{large.bundle}")
    assert sum(value == b"@1" for value in values) == 20  # two snapshots have these
    values = app.redis.hvals(f"magpie:{{other}}:objects:{other.bundle}")
    assert not any(value.startswith(b"@") for value in values)


def test_an_old_change_is_enough(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGPIE_COMPACT_SECONDS", "1")
    application.cache_clear()
    (shop,) = shops(application(), "shop")
    shop.add(1)
    (backlog,) = [Backlogs(app.catalogue, app.snapshots).of("shop", shop.bundle, 100)]
    assert (backlog.generation, backlog.changes, backlog.seconds < 60) == (0, 2, True)
    time.sleep(1.1)
    assert invoke() == {"compacted": 1, "elsewhere": 0}
    after = Backlogs(app.catalogue, app.snapshots).of("shop", shop.bundle, 100)
    assert (after.generation, after.changes) == (1, 0)


def test_backlogs_count_from_the_newest_snapshot_and_ask_s3_once(app: Application) -> None:
    (shop,) = shops(app, "shop")
    asked: list[str] = []

    class Counting(Snapshots):
        def pointer(self, customer: str, bundle: str) -> Pointer:
            asked.append(customer)
            return super().pointer(customer, bundle)

    backlogs = Backlogs(app.catalogue, Counting(app.s3, app.settings.bucket, app.settings.cache))
    shop.add(8)
    assert backlogs.of("shop", shop.bundle, 100).changes == 16
    assert backlogs.of("shop", shop.bundle, 10).changes == 10
    invoke()
    shop.add(3)
    for _ in range(3):
        backlog = backlogs.of("shop", shop.bundle, 100)
        assert (backlog.generation, backlog.changes) == (1, 6)
    assert asked == ["shop"]
    shop.add(5)
    invoke()
    assert backlogs.of("shop", shop.bundle, 100).generation == 2
    assert asked == ["shop", "shop"]


def test_one_failure_keeps_no_other_waiting_and_is_raised_in_the_end(
    app: Application, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, shop = shops(app, "a-broken", "shop")
    broken.add(6)
    shop.add(7)
    key = f"customers/a-broken/index/{broken.bundle}/current.json"
    app.s3.put_object(Bucket=app.settings.bucket, Key=key, Body=b"{")
    with pytest.raises(MagpieError, match=f"could not be compacted: a-broken {broken.bundle}: "):
        invoke()
    assert shop.generation() == 1
    broken.check(tmp_path / "reader")  # it is searched as it was
    reported = metrics(capsys)
    assert sum("CompactionFailures" in blob for blob in reported) == 1
    (done,) = [blob for blob in reported if "CompactedIndexes" in blob]
    assert (done["service"], done["CompactedIndexes"], done["CompactedObjects"]) == ("compaction", [1], [7])
    assert 0 < done["CompactionSeconds"][0] < 60
    app.s3.delete_object(Bucket=app.settings.bucket, Key=key)
    assert invoke() == {"compacted": 1, "elsewhere": 0}
    broken.check(tmp_path / "reader")


def metrics(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines that CloudWatch makes metrics of."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    return [line for line in lines if "_aws" in line]


def test_an_index_that_another_round_has_is_left_to_it(app: Application) -> None:
    (shop,) = shops(app, "shop")
    shop.add(6)
    leases = CompactionLeases(connect(app.settings.redis_url))
    with leases.take("shop", shop.bundle, 60) as taken, leases.take("shop", shop.bundle, 60) as again:
        assert (taken, again) == (True, False)
        assert invoke() == {"compacted": 0, "elsewhere": 1}
        with leases.take("other", shop.bundle, 60) as others:
            assert others
    assert invoke() == {"compacted": 1, "elsewhere": 0}


def test_the_lease_of_one_who_was_killed_ends(app: Application) -> None:
    leases = CompactionLeases(app.redis)
    with leases.take("shop", "b@1", 0.2) as first:
        time.sleep(0.3)
        with leases.take("shop", "b@1", 60) as second:
            assert first and second
            with leases.take("shop", "b@1", 60) as third:  # the first one's end takes nothing from the second
                assert not third
    with leases.take("shop", "b@1", 60) as fourth:
        assert fourth


def test_to_lose_the_race_is_no_failure(
    app: Application, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop,) = shops(app, "shop")
    shop.add(6)
    model = app.hash_models[shop.bundle]
    faster = Snapshots(app.s3, app.settings.bucket, tmp_path / "faster")

    class Slow(Snapshots):
        def upload(self, customer: str, bundle: str, path: Path) -> None:
            assert compact(app.catalogue, faster, model, customer, bundle)
            super().upload(customer, bundle, path)

    slow = Slow(app.s3, app.settings.bucket, tmp_path / "slow")
    assert round_of(app, slow).run(["shop"], lambda: 60).compacted == []
    assert shop.generation() == 1
    assert not [blob for blob in metrics(capsys) if "CompactionFailures" in blob]
    shop.check(tmp_path / "reader")


def test_what_one_who_was_killed_left_to_do_is_done(app: Application, tmp_path: Path) -> None:
    (shop,) = shops(app, "shop")
    shop.add(6)

    def killed(step: str) -> None:
        if step == "announce":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compact(app.catalogue, app.snapshots, app.hash_models[shop.bundle], "shop", shop.bundle, step=killed)
    assert (shop.generation(), app.catalogue.generation("shop", shop.bundle)) == (1, 0)
    shop.check(tmp_path / "reader")
    invoke()
    assert app.catalogue.generation("shop", shop.bundle) == shop.generation() == 1
    shop.add(6)
    with pytest.raises(KeyboardInterrupt):
        compact(app.catalogue, app.snapshots, app.hash_models[shop.bundle], "shop", shop.bundle, step=killed)
    assert (shop.generation(), app.catalogue.generation("shop", shop.bundle)) == (2, 1)
    application.cache_clear()  # another process, which has not seen the snapshots before
    assert invoke() == {"compacted": 0, "elsewhere": 0}
    assert app.catalogue.generation("shop", shop.bundle) == shop.generation() == 2
    shop.check(tmp_path / "reader")


def test_a_disk_that_takes_no_snapshot_is_told_as_unavailable(app: Application, tmp_path: Path) -> None:
    (shop,) = shops(app, "shop")
    shop.add(6)
    invoke()
    (tmp_path / "no-folder").touch()
    with pytest.raises(Unavailable, match=r"cannot be kept in .*no-folder"):
        shop.nearest(shop.vectors[0], tmp_path / "no-folder")


def round_of(
    app: Application,
    snapshots: Snapshots,
    catalogue: Catalogue | None = None,
    models: Mapping[str, HashModel] | None = None,
) -> CompactionRound:
    return CompactionRound(
        catalogue or app.catalogue,
        snapshots,
        CompactionLeases(app.redis),
        app.hash_models if models is None else models,
        Thresholds(CHANGES, 900),
        CompactionMetrics(),
    )


def test_a_bundle_without_a_hash_model_is_left_and_the_log_says_so_once(
    app: Application, caplog: pytest.LogCaptureFixture
) -> None:
    (shop,) = shops(app, "shop")
    shop.add(6)
    round_ = round_of(app, app.snapshots, models={})
    for _ in range(2):
        assert round_.run(["shop"], lambda: 60).compacted == []
    assert shop.generation() == 0
    (line,) = [record for record in caplog.records if "hash model" in record.message]
    assert line.__dict__["bundle"] == shop.bundle


def test_without_redis_the_function_fails_as_unavailable(app: Application) -> None:
    shops(app, "shop")
    nowhere = Catalogue(connect("redis://127.0.0.1:1/0"))
    with pytest.raises(Unavailable, match="Redis does not answer"):
        round_of(app, app.snapshots, nowhere).run(["shop"], lambda: 60)
