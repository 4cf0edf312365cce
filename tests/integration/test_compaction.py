"""Compaction with a real Redis and a real S3: nothing lost, nothing doubled, wherever it dies."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local import resources
from magpie.errors import Aborted, Unavailable
from magpie.index.archived_objects import ArchivedObjects
from magpie.index.compact import CompactEngine
from magpie.index.compaction import Compacted, compact
from magpie.index.live_index import LiveIndex
from magpie.store.catalogue import Catalogue
from magpie.store.redis_connection import connect
from magpie.store.snapshots import Snapshots
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Box, DetectedObject, EmbeddedObject, Vector
from magpie.v1.product_pb2 import Product
from tests.random_codes import random_codes

BUNDLE = "default@1"
DIMENSION = 8
STEPS = ["read", "archive", "write", "upload", "swap", "announce", "archive more", "sweep"]
QUERY = {"identity": np.eye(1, DIMENSION, dtype=np.float32)[0]}
MODEL = random_codes({"identity": DIMENSION})


class Parts:
    """A catalogue with its snapshots, and engines over them as processes of their own would have them."""

    def __init__(self, client: redis.Redis, s3: Any, bucket: str, folder: Path) -> None:
        self.client, self.s3, self.bucket, self.folder = client, s3, bucket, folder
        self.catalogue = Catalogue(client)
        self.snapshots = self.snapshots_of("compaction")

    def snapshots_of(self, machine: str) -> Snapshots:
        return Snapshots(self.s3, self.bucket, self.folder / machine)

    def engine(self, machine: str = "reader") -> CompactEngine:
        return CompactEngine(self.catalogue, self.snapshots_of(machine))

    def compact(
        self, step: Callable[[str], None] = lambda _name: None, customer: str = "shop"
    ) -> Compacted | None:
        return compact(self.catalogue, self.snapshots, MODEL, customer, BUNDLE, step=step)

    def put(self, product_id: str, price: float = 0, images: str = "a", customer: str = "shop") -> None:
        product = Product(id=product_id, price=price, images=list(images))
        self.catalogue.upsert_products(customer, [product], BUNDLE)
        for sha256 in images:
            self.catalogue.write_objects(event(product_id, sha256, customer))

    def delete(self, product_id: str) -> None:
        self.catalogue.delete_products("shop", [product_id])

    def stored(self) -> dict[str, bytes]:
        """Image -> what Redis holds of its objects."""
        found = self.client.hgetall(f"magpie:{{shop}}:objects:{BUNDLE}")
        return {key.decode().replace("\0", " "): value for key, value in found.items()}

    def files(self) -> list[str]:
        """Snapshot files on S3."""
        answer = self.s3.list_objects_v2(Bucket=self.bucket, Prefix="customers/shop/index/")
        return sorted(
            name for o in answer.get("Contents", []) if (name := o["Key"].split("/")[-1])[0].isdigit()
        )


@pytest.fixture
def parts(redis_client: redis.Redis, s3: Any, bucket: str, tmp_path: Path) -> Parts:
    return Parts(redis_client, s3, bucket, tmp_path)


def event(product_id: str, sha256: str, customer: str = "shop") -> ObjectsEmbedded:
    """One object, whose vector depends on product and picture: a second upload has the same bytes."""
    rng = np.random.default_rng(list(f"{product_id} {sha256}".encode()))
    vector = rng.standard_normal(DIMENSION).astype(np.float32)
    vector /= np.linalg.norm(vector)
    return ObjectsEmbedded(
        image=IngestedImage(event_id="e", customer=customer, product_id=product_id, sha256=sha256),
        objects=[
            EmbeddedObject(
                object=DetectedObject(box=Box(x0=0, y0=0, x1=1, y1=1)),
                vectors=[Vector(space="identity", values=vector.tobytes())],
            )
        ],
        bundle=BUNDLE,
    )


def found(engine: CompactEngine, customer: str = "shop") -> dict[str, float]:
    """`product image` of every candidate -> the product's price. Fails if one comes twice."""
    answer = engine.find(customer, BUNDLE, [QUERY], None, 1000)
    assert not answer.stale
    images = [f"{c.product_id} {c.image_sha256}" for c in answer.results[0]]
    assert len(images) == len(set(images))
    prices = {product.id: product.price for product in answer.products}
    return {image: prices[image.split()[0]] for image in images}


def test_objects_move_into_snapshots_and_redis_lets_go_of_them_one_generation_later(parts: Parts) -> None:
    assert parts.compact() is None
    parts.put("p1", 1, "ab")
    first = parts.compact()
    assert first is not None and (first.generation, first.products, first.objects, first.merged) == (
        1,
        1,
        2,
        2,
    )
    assert first.archived == 0
    assert all(len(value) > 10 for value in parts.stored().values())
    assert parts.compact() is None
    parts.put("p2", 2)
    second = parts.compact()
    assert second is not None and (second.generation, second.objects, second.merged) == (2, 3, 1)
    assert second.archived == 2
    stored = parts.stored()
    assert (stored["p1 a"], stored["p1 b"]) == (b"@1", b"@1") and len(stored["p2 a"]) > 10
    assert found(parts.engine()) == {"p1 a": 1, "p1 b": 1, "p2 a": 2}


def test_what_changes_afterwards_lies_over_the_snapshot(parts: Parts) -> None:
    for number in range(6):
        parts.put(f"p{number}", number, "ab")
    parts.compact()
    engine = parts.engine()
    assert len(found(engine)) == 12
    for engine_ in (engine, parts.engine("another")):
        parts.catalogue.upsert_products("shop", [Product(id="p0", price=50, images=["a", "b"])], BUNDLE)
        parts.catalogue.upsert_products("shop", [Product(id="p1", price=1, images=["b"])], BUNDLE)
        parts.delete("p2")
        parts.put("p9", 9)
        now = found(engine_)
        assert (now["p0 a"], now["p1 b"], now["p9 a"]) == (50, 1, 9)
        assert not {"p1 a", "p2 a", "p2 b"} & now.keys() and len(now) == 10
    parts.compact()
    assert found(engine) == found(parts.engine("third")) == now
    parts.put("p2", 2, "ab")  # it comes back
    parts.put("p1", 1, "ca")
    expected = {k: v for k, v in now.items() if k != "p1 b"} | {"p2 a": 2, "p2 b": 2, "p1 a": 1, "p1 c": 1}
    assert found(engine) == expected
    parts.compact()
    assert found(parts.engine("fourth")) == found(engine) == expected


def test_vectors_and_boxes_survive_any_number_of_compactions(parts: Parts) -> None:
    parts.put("p1", 1, "ab")
    exact = parts.engine().find("shop", BUNDLE, [QUERY], None, 10).results[0]
    for number in range(4):
        parts.compact()
        parts.put(f"q{number}")
    again = {
        c.image_sha256: c
        for c in parts.engine("other").find("shop", BUNDLE, [QUERY], None, 100).results[0]
        if c.product_id == "p1"
    }
    for candidate in exact:
        kept = again[candidate.image_sha256]
        assert kept.box == candidate.box
        before, after = np.frombuffer(candidate.identity, "<f4"), np.frombuffer(kept.identity, "<f4")
        assert after == pytest.approx(before, abs=0.5 / 127)  # rounded once, not again and again


@pytest.mark.parametrize("deadly", STEPS)
def test_killed_at_any_step_the_next_run_completes(parts: Parts, deadly: str) -> None:
    def die(step: str) -> None:
        if step == deadly:
            raise KeyboardInterrupt

    parts.put("p1", 1, "ab")
    parts.compact()
    parts.put("p2", 2)
    parts.compact()
    parts.put("p3", 3)
    parts.delete("p1")
    expected = {"p2 a": 2, "p3 a": 3}
    reader = parts.engine()
    assert found(reader) == expected
    with pytest.raises(KeyboardInterrupt):
        parts.compact(die)
    assert found(reader) == found(parts.engine("after the death")) == expected
    parts.put("p4", 4)
    expected["p4 a"] = 4
    again = parts.compact()
    assert again is not None
    assert found(reader) == found(parts.engine("after the next run")) == expected
    parts.put("p5", 5)
    parts.compact()
    parts.put("p6", 6)
    parts.compact()
    values = {value for image, value in parts.stored().items() if image not in ("p6 a", "p5 a")}
    assert all(value.startswith(b"@") for value in values)  # Redis has let go of the rest, sooner or later
    assert found(parts.engine("at the end")) == expected | {"p5 a": 5, "p6 a": 6}


def test_an_image_that_goes_and_comes_again_with_equal_bytes_is_not_let_go_of_too_early(parts: Parts) -> None:
    parts.put("p1")
    parts.put("p2")
    parts.compact()
    parts.delete("p1")
    parts.compact()
    parts.put("p1")  # the second snapshot does not have it
    seen = {}
    parts.compact(lambda step: seen.update({step: found(parts.engine(step))}))
    assert seen.keys() == set(STEPS)
    assert all(there == {"p1 a": 0, "p2 a": 0} for there in seen.values())


def test_of_two_compactions_one_wins(parts: Parts) -> None:
    parts.put("p1")

    def overtake(step: str) -> None:
        if step == "swap":
            assert parts.compact() is not None

    with pytest.raises(Aborted):
        parts.compact(overtake)
    assert found(parts.engine()) == {"p1 a": 0}
    assert parts.snapshots.pointer("shop", BUNDLE).generation == 1


def test_old_files_are_swept_and_orphans_after_a_while(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        parts.put(f"p{number}")
        parts.compact()
    pointer = parts.snapshots.pointer("shop", BUNDLE)
    assert parts.files() == sorted([pointer.file, pointer.previous])
    orphan = parts.snapshots.new_path("shop", BUNDLE, 99)
    orphan.write_bytes(b"a compaction at work, or dead")
    parts.snapshots.upload("shop", BUNDLE, orphan)
    assert parts.snapshots.sweep("shop", BUNDLE, pointer) == []
    monkeypatch.setattr("magpie.store.snapshots.ORPHANED_AFTER_SECONDS", -1)
    assert parts.snapshots.sweep("shop", BUNDLE, pointer) == [orphan.name]
    assert len(found(parts.engine())) == 4


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[64] ^= 1  # where the first array begins
    path.write_bytes(content)


def test_a_damaged_file_on_the_disk_is_fetched_again(parts: Parts) -> None:
    parts.put("p1")
    parts.compact()
    assert found(parts.engine()) == {"p1 a": 0}
    (path,) = (parts.folder / "reader" / "shop" / BUNDLE).glob("*.snapshot")
    damage(path)
    assert found(parts.engine()) == {"p1 a": 0}
    assert path.with_suffix(".damaged").exists() and path.exists()


def test_while_the_newest_snapshot_is_damaged_the_one_before_serves_and_nothing_is_missing(
    parts: Parts,
) -> None:
    for number in range(4):
        parts.put(f"p{number}", number)
        parts.compact()
    pointer = parts.snapshots.pointer("shop", BUNDLE)
    bad = parts.folder / pointer.file
    bad.write_bytes(b"x" * 5000)
    parts.snapshots.upload("shop", BUNDLE, bad)
    expected = {f"p{number} a": number for number in range(4)}
    assert found(parts.engine("new")) == expected
    (parts.folder / "compaction" / "shop" / BUNDLE / pointer.file).unlink()
    for generation in (5, 6):  # a compaction makes up for it
        healed = parts.compact()
        assert healed is not None and healed.generation == generation
        assert found(parts.engine(f"after {generation}")) == expected
        parts.put("q", 0)
        expected["q a"] = 0


def test_s3_away_the_disk_serves_and_without_it_unavailable(parts: Parts, local_aws: str) -> None:
    parts.put("p1")
    parts.compact()
    assert found(parts.engine()) == {"p1 a": 0}
    away = resources.client("s3", "http://127.0.0.1:1")
    assert found(CompactEngine(parts.catalogue, Snapshots(away, parts.bucket, parts.folder / "reader"))) == {
        "p1 a": 0
    }
    nowhere = CompactEngine(parts.catalogue, Snapshots(away, parts.bucket, parts.folder / "nowhere"))
    with pytest.raises(Unavailable):
        nowhere.find("shop", BUNDLE, [QUERY], None, 10)
    recovering = Snapshots(parts.s3, parts.bucket, parts.folder / "nowhere")
    nowhere._index("shop", BUNDLE)._snapshots = recovering
    assert found(nowhere) == {"p1 a": 0}


def test_redis_away_the_last_state_answers_and_says_that_it_is_stale(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magpie.index.live_index.ASK_AGAIN_SECONDS", 0.0)
    parts.put("p1")
    parts.compact()
    parts.put("p2")
    engine, cold = parts.engine(), parts.engine()
    assert len(found(engine)) == 2
    away = Catalogue(connect("redis://127.0.0.1:1/0"))
    monkeypatch.setattr(engine._index("shop", BUNDLE), "_catalogue", away)
    answer = engine.find("shop", BUNDLE, [QUERY], None, 10)
    assert answer.stale and sorted(c.product_id for c in answer.results[0]) == ["p1", "p2"]
    monkeypatch.setattr(cold._index("shop", BUNDLE), "_catalogue", away)
    answer = cold.find("shop", BUNDLE, [QUERY], None, 10)  # it has the snapshot alone
    assert answer.stale and [c.product_id for c in answer.results[0]] == ["p1"]
    monkeypatch.setattr(engine._index("shop", BUNDLE), "_catalogue", parts.catalogue)
    monkeypatch.setattr(cold._index("shop", BUNDLE), "_catalogue", parts.catalogue)
    assert len(found(engine)) == len(found(cold)) == 2
    with pytest.raises(Unavailable):
        CompactEngine(away, parts.snapshots_of("nothing here")).find("shop", BUNDLE, [QUERY], None, 10)


def test_readers_move_to_a_new_snapshot_beside_their_queries(parts: Parts) -> None:
    parts.put("p1")
    parts.compact()
    moves: list[Callable[[], None]] = []
    index = LiveIndex(parts.catalogue, parts.snapshots_of("reader"), "shop", BUNDLE, run=moves.append)

    def generation() -> int:
        view, stale = index.view()
        assert not stale and view.base is not None
        return view.base.snapshot.generation

    assert generation() == 1
    parts.put("p2")
    parts.compact()
    assert [generation(), generation()] == [1, 1]
    (move,) = moves
    parts.put("p3")  # after the snapshot
    move()
    assert generation() == 2
    view, _ = index.view()
    assert len(view.fresh.owner) == 1


def test_a_reader_that_slept_for_long_begins_anew(parts: Parts) -> None:
    parts.put("p1")
    parts.compact()
    engine = parts.engine()
    assert len(found(engine)) == 1
    for number in range(3):
        parts.put(f"q{number}")
        parts.compact()
    parts.client.xtrim("magpie:{shop}:changes", maxlen=0, approximate=False)
    parts.delete("p1")
    parts.put("r1")
    assert sorted(found(engine)) == ["q0 a", "q1 a", "q2 a", "r1 a"]
    assert sorted(found(parts.engine("cold"))) == ["q0 a", "q1 a", "q2 a", "r1 a"]
    parts.compact()
    assert sorted(found(parts.engine("later"))) == ["q0 a", "q1 a", "q2 a", "r1 a"]


def test_two_customers_with_the_same_products_never_meet(parts: Parts) -> None:
    for customer, price in (("shop", 1), ("other", 2)):
        for number in range(3):
            parts.put(f"p{number}", price, customer=customer)
        parts.compact(customer=customer)
    parts.catalogue.delete_products("other", ["p1"])
    engine = parts.engine()
    assert found(engine) == {f"p{number} a": 1 for number in range(3)}
    assert found(engine, "other") == {"p0 a": 2, "p2 a": 2}


actions = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "delete", "compact", "die", "search", "trim"]),
        st.integers(0, 4),
        st.sampled_from(["a", "b", "ab"]),
        st.sampled_from(STEPS),
    ),
    max_size=30,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions)
def test_any_sequence_of_writes_deaths_and_searches(
    redis_client: redis.Redis, s3: Any, tmp_path_factory: pytest.TempPathFactory, sequence: list[Any]
) -> None:
    redis_client.flushall()
    name = f"test-{os.urandom(8).hex()}"
    s3.create_bucket(Bucket=name)
    parts = Parts(redis_client, s3, name, tmp_path_factory.mktemp("index"))
    reader = parts.engine()
    expected: dict[str, float] = {}
    for number, (action, product, images, deadly) in enumerate(sequence):
        id_ = f"p{product}"
        match action:
            case "put" | "delete":
                for image in [i for i in expected if i.split()[0] == id_]:
                    del expected[image]
                if action == "delete":
                    parts.delete(id_)
                else:
                    parts.put(id_, number, images)
                    expected |= {f"{id_} {sha256}": number for sha256 in images}
            case "compact":
                parts.compact()
            case "die":

                def die(step: str, deadly: str = deadly) -> None:
                    if step == deadly:
                        raise KeyboardInterrupt

                with suppress(KeyboardInterrupt):
                    parts.compact(die)
            case "trim":
                redis_client.xtrim("magpie:{shop}:changes", maxlen=2, approximate=False)
            case "search":
                assert found(reader) == expected
    assert found(reader) == found(parts.engine("cold")) == expected


def test_what_comes_again_with_equal_bytes_after_the_changes_were_read_stays(parts: Parts) -> None:
    """The first snapshot has the bytes, the one being written has not: the catalogue keeps them."""
    parts.put("p1", 1)
    parts.compact()
    parts.put("p2", 2)
    parts.compact()
    parts.delete("p1")

    def again(step: str) -> None:
        if step == "archive":
            parts.put("p1", 3)

    done = parts.compact(again)
    assert done is not None and (done.generation, done.objects) == (3, 1)
    assert len(parts.stored()["p1 a"]) > 10
    assert found(parts.engine("cold")) == found(parts.engine()) == {"p1 a": 3, "p2 a": 2}
    parts.compact()
    assert found(parts.engine("colder")) == {"p1 a": 3, "p2 a": 2}


def test_writes_are_seen_by_the_next_answer_while_compaction_runs_and_is_killed(
    parts: Parts, redis_url: str, local_aws: str
) -> None:
    """Real processes compact without end and are killed at random; each writer checks its own writes."""
    context = multiprocessing.get_context("spawn")
    arguments = (redis_url, local_aws, parts.bucket, str(parts.folder / "killed"))
    stop = threading.Event()
    failures: list[str] = []

    def killer() -> None:
        rng = random.Random(0)
        for _ in range(4):
            before = parts.snapshots.pointer("shop", BUNDLE).generation
            process = context.Process(target=compact_for_ever, args=arguments)
            process.start()
            give_up = time.monotonic() + 40
            while parts.snapshots.pointer("shop", BUNDLE).generation < before + 2:
                if time.monotonic() > give_up:
                    failures.append("nothing was compacted")
                    break
                time.sleep(0.02)
            time.sleep(0.2 * rng.random())
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        stop.set()

    def writer(number: int) -> None:
        engine = parts.engine(f"reader-{number}")
        rng = random.Random(number)
        mine: dict[str, float] = {}
        price = 0
        try:
            while not stop.is_set():
                price += 1
                id_ = f"w{number}-{rng.randrange(30)}"
                if rng.random() < 0.3:
                    parts.delete(id_)
                    mine.pop(f"{id_} a", None)
                else:
                    parts.put(id_, price)
                    mine[f"{id_} a"] = price
                seen = {image: at for image, at in found(engine).items() if image.startswith(f"w{number}-")}
                if seen != mine:
                    failures.append(f"writer {number} after {price}: {seen.items() ^ mine.items()}")
                    return
        except Exception as error:
            failures.append(f"writer {number}: {error!r}")

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(2)]
    killing = threading.Thread(target=killer)
    for thread in (*threads, killing):
        thread.start()
    for thread in (*threads, killing):
        thread.join()
    assert failures == []
    before = found(parts.engine("reader-0"))
    parts.compact()
    assert found(parts.engine("cold")) == before


def compact_for_ever(redis_url: str, aws_url: str, bucket: str, folder: str) -> None:
    """Of a process that is going to be killed."""
    snapshots = Snapshots(resources.client("s3", aws_url), bucket, Path(folder))
    catalogue = Catalogue(connect(redis_url))
    while True:
        compact(catalogue, snapshots, MODEL, "shop", BUNDLE)


def test_archived_objects_are_read_back(parts: Parts) -> None:
    parts.put("p1", 1, "ab")
    parts.compact()
    archived = ArchivedObjects(parts.snapshots_of("reader"))
    with pytest.raises(Unavailable):
        archived.of_image("shop", BUNDLE, "p1", "b", 2)
    parts.put("p2", 2)
    parts.compact()
    (read,) = archived.of_image("shop", BUNDLE, "p1", "b", 1)
    (written,) = event("p1", "b").objects
    assert read.object.box == written.object.box
    before, after = (np.frombuffer(e.vectors[0].values, "<f4") for e in (written, read))
    assert after == pytest.approx(before, abs=0.5 / 127)
    assert archived.of_image("shop", BUNDLE, "p1", "c", 2) == []
    assert archived.of_image("shop", BUNDLE, "p3", "a", 2) == []
    with pytest.raises(Unavailable):
        archived.of_image("other", BUNDLE, "p1", "b", 1)
