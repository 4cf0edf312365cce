"""From one bundle to the next: real Redis, S3 and queues, real (tiny) models, death at every step."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from google.protobuf import json_format
from onnx import helper

from local import resources
from local.home import BUCKET
from magpie.changeover import operator as operator_module
from magpie.changeover.checkpoint import Step
from magpie.changeover.gate import GateQuery
from magpie.changeover.sampled_queries import ANOTHER_PICTURE, RETAKEN
from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.store import serving as serving_module
from magpie.store.compaction_leases import CompactionLeases
from magpie.store.upload_key import UploadKey
from magpie.v1.catalog_pb2 import ImageStatus
from magpie.v1.events_pb2 import ImageUploaded, IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Image, Vector
from tests.integration import changeover_system
from tests.integration.changeover_system import (
    CUSTOMER,
    NEW,
    OLD,
    System,
    index_of,
    make_bundle,
    picture,
    sha256,
)
from tests.unit.vision import tiny_models

INDEXED, FAILED = ImageStatus.STATE_INDEXED, ImageStatus.STATE_FAILED
PRODUCTS = [f"p{number}" for number in range(6)]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles whose vectors have other dimensions, so that nothing can be mixed unseen."""
    folder = tmp_path_factory.mktemp("bundles")
    return (
        make_bundle(folder / "old", "1", {"identity": 8, "category": 4, "similar": 5}),
        make_bundle(folder / "new", "2", {"identity": 12, "category": 6, "similar": 7}),
    )


@pytest.fixture
def system(
    redis_client: redis.Redis,
    redis_url: str,
    local_aws: str,
    bundles: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> System:
    """Empty queues, an empty Redis, no waiting for caches."""
    variables = {
        "AWS_ENDPOINT_URL": local_aws,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "POWERTOOLS_TRACE_DISABLED": "true",
        "POWERTOOLS_METRICS_NAMESPACE": "test",
        "POWERTOOLS_SERVICE_NAME": "test",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    queues = resources.ensure(local_aws)
    sqs = resources.client("sqs", local_aws)
    for url in (*queues.work.values(), *queues.parked.values()):
        sqs.purge_queue(QueueUrl=url)
    monkeypatch.setattr(serving_module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(operator_module, "SETTLE_SECONDS", 0.0)
    return System(redis_url, local_aws, *bundles)


@pytest.fixture
def shop(system: System) -> System:
    """Six products with one picture each, one with two, all indexed under the old bundle."""
    for number, product_id in enumerate(PRODUCTS):
        system.upsert(CUSTOMER, product_id, picture(number))
    system.upsert(CUSTOMER, "two", picture(50), picture(50) + b"\0")  # another file, the same picture
    system.pump()
    assert system.states(CUSTOMER, *PRODUCTS, "two") == [INDEXED] * 8
    return system


def done(system: System) -> tuple[int, int, str]:
    """Images under the new bundle, of how many, and the state."""
    progress = system.operator.status(CUSTOMER)
    return progress.done, progress.total, progress.state


def test_the_old_bundle_answers_until_the_new_one_is_complete_and_switched_to(
    shop: System, redis_client: redis.Redis
) -> None:
    assert shop.search(CUSTOMER, picture(3)) == (OLD, shop.search(CUSTOMER, picture(3))[1])
    old = index_of(redis_client, OLD)
    shop.operator.start(CUSTOMER, NEW, backlog=3)
    with pytest.raises(FailedPrecondition, match="0 of 0 pictures, and not all are counted yet"):
        shop.operator.switch(CUSTOMER)
    assert shop.sender.step(CUSTOMER) == 3  # no more than the backlog
    assert shop.sender.step(CUSTOMER) == 0
    assert done(shop) == (0, 8, "running")
    shop.pump()
    assert done(shop) == (3, 8, "running")
    assert shop.search(CUSTOMER, picture(3))[0] == OLD
    with pytest.raises(FailedPrecondition, match=r"not complete: 3 of 8 pictures"):
        shop.operator.switch(CUSTOMER)
    assert shop.states(CUSTOMER, *PRODUCTS) == [INDEXED] * 6  # whoever asks hears nothing of it
    shop.embed_all()
    assert done(shop) == (8, 8, "complete")
    assert index_of(redis_client, OLD) == old

    verdict = shop.operator.switch(CUSTOMER)
    assert verdict is not None
    assert {(f.kind, f.metric, f.loss) for f in verdict.figures} == {
        (ANOTHER_PICTURE, "recall@1", ""),
        (RETAKEN, "recall@1", ""),
    }
    assert sum(figure.queries for figure in verdict.figures) == 8
    bundle, hits = shop.search(CUSTOMER, picture(3))
    assert (bundle, hits[0]) == (NEW, "p3")
    assert shop.operator.switch(CUSTOMER) is None  # again: it serves already

    assert shop.operator.rollback(CUSTOMER).state == "complete"
    assert shop.search(CUSTOMER, picture(3))[0] == OLD
    with pytest.raises(FailedPrecondition, match="nothing to roll back"):
        shop.operator.rollback(CUSTOMER)
    with pytest.raises(FailedPrecondition, match=r"tiny@1 serves customer shop: .*drop tiny@2"):
        shop.operator.drop(CUSTOMER)
    shop.operator.switch(CUSTOMER)
    with pytest.raises(FailedPrecondition, match="serves"):
        shop.operator.drop(CUSTOMER, NEW)
    assert shop.operator.drop(CUSTOMER) == OLD
    assert shop.search(CUSTOMER, picture(3))[0] == NEW
    assert shop.app().catalogue.bundles(CUSTOMER) == [NEW]
    left = {key.decode() for key in redis_client.keys("magpie:*") if b"idempotency" not in key}
    assert not {key for key in left if "due:" in key or "failed:" in key or key.endswith("changeover")}
    assert [entry["what"] for entry in shop.app().change_overs.history(CUSTOMER)] == [
        "switch",
        "rollback",
        "switch",
        "drop",
    ]
    assert shop.app().change_overs.customers() == []


def test_the_new_index_is_what_indexing_under_the_new_bundle_makes(
    shop: System, redis_client: redis.Redis, bundles: tuple[Path, Path]
) -> None:
    shop.operator.start(CUSTOMER, NEW)
    shop.embed_all()
    embedded = index_of(redis_client, NEW)
    fresh = System(shop.redis_url, shop.aws_url, bundles[1], bundles[0])
    for number, product_id in enumerate(PRODUCTS):
        fresh.upsert("fresh", product_id, picture(number))
    fresh.upsert("fresh", "two", picture(50), picture(50) + b"\0")
    fresh.pump()
    assert embedded == index_of(redis_client, NEW, "fresh")
    assert len(embedded) == 8


def test_uploads_and_deletes_reach_both_indexes_before_and_after_the_switch(
    shop: System, redis_client: redis.Redis
) -> None:
    def both() -> tuple[set[bytes], set[bytes]]:
        return set(index_of(redis_client, OLD)), set(index_of(redis_client, NEW))

    shop.operator.start(CUSTOMER, NEW)
    shop.embed_all()
    shop.upsert(CUSTOMER, "during", picture(70))
    shop.pump()
    assert shop.states(CUSTOMER, "during") == [INDEXED]
    assert shop.search(CUSTOMER, picture(70))[1][0] == "during"
    assert done(shop) == (8, 9, "running")  # a switch now would lose it
    with pytest.raises(FailedPrecondition, match="8 of 9"):
        shop.operator.switch(CUSTOMER)
    shop.embed_all()
    shop.operator.switch(CUSTOMER)
    shop.upsert(CUSTOMER, "after", picture(71))
    shop.pump()
    assert shop.states(CUSTOMER, "after") == [INDEXED]
    assert shop.search(CUSTOMER, picture(71)) == (NEW, shop.search(CUSTOMER, picture(71))[1])
    assert shop.search(CUSTOMER, picture(71))[1][0] == "after"
    old, new = both()
    assert len(new - old) == 1
    shop.embed_all()
    old, new = both()
    assert old == new
    assert len(old) == 10
    shop.delete(CUSTOMER, "during")
    shop.upsert(CUSTOMER, "two", picture(50), upload=False)
    old, new = both()
    assert old == new
    assert len(old) == 8
    shop.operator.rollback(CUSTOMER)
    assert shop.search(CUSTOMER, picture(71))[1][0] == "after"


def test_an_upload_that_the_switch_overtakes_arrives_under_the_bundle_that_serves(shop: System) -> None:
    shop.operator.start(CUSTOMER, NEW)
    shop.embed_all()
    shop.upsert(CUSTOMER, "late", picture(72))
    time.sleep(0.5)  # the event is in the queue
    while not shop._batch("detection"):  # detected with the old bundle
        time.sleep(0.1)
    shop.operator.switch(CUSTOMER)
    shop.pump()  # indexed under the old one: not what searches see
    assert shop.states(CUSTOMER, "late") not in ([INDEXED], [FAILED])
    with pytest.raises(FailedPrecondition, match="1 pictures are still to be embedded for tiny@2"):
        shop.operator.drop(CUSTOMER)
    shop.embed_all()
    assert shop.states(CUSTOMER, "late") == [INDEXED]
    assert shop.search(CUSTOMER, picture(72))[1][0] == "late"
    shop.operator.drop(CUSTOMER)


def test_a_picture_that_the_new_bundle_cannot_take_is_named_and_may_be_left_out(
    shop: System, redis_client: redis.Redis
) -> None:
    key = str(UploadKey(CUSTOMER, "p2", sha256(picture(2))))
    shop.app().s3.delete_object(Bucket=BUCKET, Key=key)
    shop.operator.start(CUSTOMER, NEW)
    shop.embed_all()
    (failed,) = shop.operator.failed(CUSTOMER)
    assert (failed.product_id, failed.sha256) == ("p2", sha256(picture(2)))
    assert key in failed.reason
    assert shop.states(CUSTOMER, "p2") == [INDEXED]  # it is, under the bundle that serves
    assert shop.search(CUSTOMER, picture(2))[1][0] == "p2"
    with pytest.raises(FailedPrecondition, match=r"1 pictures failed under tiny@2:\n  p2 "):
        shop.operator.switch(CUSTOMER)
    verdict = shop.operator.switch(CUSTOMER, allow_missing=True)
    assert verdict is not None
    assert verdict.failed == [failed]
    assert shop.states(CUSTOMER, "p2") == [FAILED]
    assert "p2" not in shop.search(CUSTOMER, picture(2))[1]
    shop.operator.rollback(CUSTOMER)
    assert shop.states(CUSTOMER, "p2") == [INDEXED]
    assert shop.search(CUSTOMER, picture(2))[1][0] == "p2"
    # Mended, it goes in.
    shop.app().s3.put_object(Bucket=BUCKET, Key=key, Body=picture(2))
    shop.pump()
    assert shop.operator.resume(CUSTOMER, retry_failed=True).waiting == 1
    shop.embed_all()
    assert shop.operator.failed(CUSTOMER) == []
    shop.operator.switch(CUSTOMER)
    assert shop.search(CUSTOMER, picture(2))[1][0] == "p2"


def test_paused_nothing_is_sent_and_resumed_it_is(shop: System) -> None:
    shop.operator.start(CUSTOMER, NEW, backlog=2)
    shop.sender.step(CUSTOMER)
    assert shop.operator.pause(CUSTOMER).state == "paused"
    shop.pump()  # what is on its way arrives
    assert done(shop) == (2, 8, "paused")
    assert shop.sender.step(CUSTOMER) == 0
    with pytest.raises(FailedPrecondition, match="change-over resume"):
        shop.operator.switch(CUSTOMER)
    assert shop.operator.resume(CUSTOMER).state == "running"
    shop.embed_all()
    assert done(shop) == (8, 8, "complete")


def test_lost_events_are_sent_again_and_doubles_act_once(shop: System, redis_client: redis.Redis) -> None:
    shop.operator.start(CUSTOMER, NEW)
    assert shop.sender.step(CUSTOMER) == 8
    shop.app().sqs.purge_queue(QueueUrl=shop.app().settings.next_queue_url)
    shop.pump()
    assert shop.sender.step(CUSTOMER) == 0  # it may be slow
    shop.app().change_overs.send_again(CUSTOMER)
    assert shop.sender.step(CUSTOMER) == 8
    before = redis_client.xlen("magpie:{shop}:changes")
    # The same once more, as by a second sender that did not see the marks.
    shop.app().change_overs.send_again(CUSTOMER)
    assert shop.sender.step(CUSTOMER) == 8
    shop.pump()
    assert len(index_of(redis_client, NEW)) == 8
    assert redis_client.xlen("magpie:{shop}:changes") == before + 8  # each was written once


def broken(folder: Path) -> Path:
    """A bundle to whose embedder all pictures look alike."""
    bundle = make_bundle(folder / "broken", "3", {"identity": 8, "category": 4, "similar": 5})
    constants: dict[str, np.ndarray] = {}
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0)]
    for space, size in (("identity", 8), ("category", 4), ("similar", 5)):
        constants |= {f"w_{space}": np.zeros((3, size), np.float32), f"b_{space}": np.ones(size, np.float32)}
        nodes += [
            helper.make_node("MatMul", ["mean", f"w_{space}"], [f"{space}_nothing"]),
            helper.make_node("Add", [f"{space}_nothing", f"b_{space}"], [space]),
        ]
    digest = tiny_models.write(
        bundle / "embedder.onnx", nodes, constants, ["identity", "category", "similar"]
    )
    card = json.loads((bundle / "embedder.card.json").read_text())
    (bundle / "embedder.card.json").write_text(json.dumps({**card, "sha256": digest}))
    return bundle


def test_a_worse_bundle_is_refused_unless_for_a_recorded_reason(shop: System, tmp_path: Path) -> None:
    worse = System(shop.redis_url, shop.aws_url, shop.old, broken(tmp_path))
    worse.operator.start(CUSTOMER, "tiny@3")
    worse.embed_all()
    with pytest.raises(FailedPrecondition, match=r"(?s)not switched.*recall@1.*--allow-worse REASON"):
        worse.operator.switch(CUSTOMER)
    assert worse.search(CUSTOMER, picture(1))[0] == OLD
    with pytest.raises(InvalidArgument, match="allow-worse"):
        worse.operator.switch(CUSTOMER, allow_worse="so")
    verdict = worse.operator.switch(CUSTOMER, allow_worse="the shop asked for it")
    assert verdict is not None
    assert any(figure.loss for figure in verdict.figures)
    assert worse.search(CUSTOMER, picture(1))[0] == "tiny@3"
    entry = worse.app().change_overs.history(CUSTOMER)[-1]
    assert entry["allow_worse"] == "the shop asked for it"
    assert any(figure["loss"] for figure in entry["figures"])


def test_graded_queries_take_the_place_of_sampled_ones(shop: System) -> None:
    shop.operator.start(CUSTOMER, NEW)
    shop.embed_all()
    queries = [
        GateQuery("graded", Image(content=picture(number)), {f"p{number}": 2.0, "two": 1.0})
        for number in range(4)
    ]
    seen: list[tuple[int, int]] = []
    verdict = shop.operator.switch(CUSTOMER, queries, progress=lambda done, total: seen.append((done, total)))
    assert verdict is not None
    assert [(f.kind, f.metric, f.queries) for f in verdict.figures] == [
        ("graded", "recall@1", 4),
        ("graded", "ndcg@10", 4),
    ]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_customers_change_over_each_for_itself(shop: System, redis_client: redis.Redis) -> None:
    shop.upsert("rival", "p1", picture(1))
    shop.pump()
    before = {
        key: redis_client.dump(key)
        for key in redis_client.keys("magpie:{rival}:*")
        if b"idempotency" not in key
    }
    shop.operator.start(CUSTOMER, NEW)
    shop.embed_all()
    shop.operator.switch(CUSTOMER)
    assert shop.search("rival", picture(1)) == (OLD, ["p1"])
    assert shop.search(CUSTOMER, picture(1))[0] == NEW
    shop.operator.drop(CUSTOMER)
    after = {
        key: redis_client.dump(key)
        for key in redis_client.keys("magpie:{rival}:*")
        if b"ranking" not in key and b"idempotency" not in key
    }
    assert after == {key: value for key, value in before.items() if b"ranking" not in key}
    with pytest.raises(FailedPrecondition, match="customer rival has no change-over"):
        shop.operator.status("rival")


def test_one_change_over_at_a_time_to_a_bundle_that_is_here(shop: System, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="tiny@9 is unknown here, known are tiny@1, tiny@2"):
        shop.operator.start(CUSTOMER, "tiny@9")
    with pytest.raises(FailedPrecondition, match="tiny@1 serves customer shop already"):
        shop.operator.start(CUSTOMER, OLD)
    with pytest.raises(InvalidArgument, match="backlog: must be at least 1"):
        shop.operator.start(CUSTOMER, NEW, backlog=0)
    shop.operator.start(CUSTOMER, NEW)
    assert shop.operator.start(CUSTOMER, NEW, backlog=7).change_over.backlog == 7  # again: the same one
    third = make_bundle(tmp_path / "third", "3", {"identity": 8, "category": 4, "similar": 5})
    other = System(shop.redis_url, shop.aws_url, shop.old, third)
    with pytest.raises(FailedPrecondition, match="a change-over from tiny@1 to tiny@2 under way"):
        other.operator.start(CUSTOMER, "tiny@3")
    assert shop.operator.drop(CUSTOMER, NEW) == NEW  # given up
    other.operator.start(CUSTOMER, "tiny@3")


def test_a_process_without_the_bundle_that_serves_says_so(shop: System) -> None:
    shop.operator.start(CUSTOMER, NEW)
    shop.embed_all()
    shop.operator.switch(CUSTOMER)
    alone = shop.app("alone", next_bundle=None)
    with pytest.raises(FailedPrecondition, match="tiny@2 is asked for, this process has tiny@1: set MAGPIE_"):
        shop.search(CUSTOMER, picture(1), alone)
    moved = shop.app("moved", bundle=shop.new, next_bundle=None)
    assert shop.search(CUSTOMER, picture(1), moved)[0] == NEW


def event(product_id: str, data: bytes, bundle: str, size: int) -> ObjectsEmbedded:
    image = IngestedImage(
        event_id="late", customer=CUSTOMER, product_id=product_id, sha256=sha256(data), bundle=bundle
    )
    vectors = [Vector(space="identity", values=np.eye(1, size, dtype="<f4").tobytes())]
    return ObjectsEmbedded(image=image, bundle=bundle, objects=[EmbeddedObject(vectors=vectors)])


def test_a_dropped_index_takes_nothing_and_says_so_where_a_picture_would_be_lost(
    shop: System, redis_client: redis.Redis
) -> None:
    shop.operator.start(CUSTOMER, NEW)
    shop.embed_all()
    shop.operator.switch(CUSTOMER)
    shop.operator.drop(CUSTOMER)
    catalogue = shop.app().catalogue
    assert catalogue.write_objects(event("p1", picture(1), OLD, 8)) == 0  # the one that serves has it
    shop.upsert(CUSTOMER, "lost", picture(80), upload=False)
    lost = event("lost", picture(80), OLD, 8)
    with pytest.raises(FailedPrecondition, match="index was dropped: send the picture again"):
        catalogue.write_objects(lost)
    catalogue.set_state(lost.image, FAILED, "its index was dropped")  # as the consumer does
    assert shop.states(CUSTOMER, "lost") == [FAILED]
    assert index_of(redis_client, OLD) == {}
    assert catalogue.bundles(CUSTOMER) == [NEW]


def test_a_drop_takes_the_snapshots_and_waits_for_a_compaction(
    shop: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = shop.app()
    keys = [f"customers/{CUSTOMER}/index/{bundle}/current.json" for bundle in (OLD, NEW)]
    for key in keys:
        app.s3.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    shop.operator.start(CUSTOMER, NEW)
    shop.embed_all()
    shop.operator.switch(CUSTOMER, allow_worse="snapshots of the test are empty")
    leases = CompactionLeases(app.redis)
    with (
        monkeypatch.context() as impatient,
        leases.take(CUSTOMER, OLD, 60) as taken,
        pytest.raises(FailedPrecondition, match="tiny@1 cannot be dropped now, its index is being compacted"),
    ):
        assert taken
        impatient.setattr(operator_module, "COMPACTION_SECONDS", 0.0)
        shop.operator.drop(CUSTOMER)
    assert app.uploads.exists(keys[0])
    with leases.take(CUSTOMER, OLD, 1):  # it ends meanwhile
        began = time.monotonic()
        shop.operator.drop(CUSTOMER)
    assert time.monotonic() - began > 0.5
    assert [app.uploads.exists(key) for key in keys] == [False, True]
    app.s3.delete_object(Bucket=BUCKET, Key=keys[1])


def test_the_ledger_counts_the_objects_of_the_bundle_that_serves(shop: System) -> None:
    shop.operator.start(CUSTOMER, NEW)
    shop.embed_all()
    three = event("p1", picture(1), NEW, 12)
    for space, size in (("category", 6), ("similar", 7)):
        three.objects[0].vectors.add(space=space, values=np.eye(1, size, dtype="<f4").tobytes())
    three.objects.extend([three.objects[0]] * 2)
    shop.app().catalogue.write_objects(three)

    def counted() -> int:
        (status,) = shop.app().catalogue.states(CUSTOMER, ["p1"])
        return status.objects

    assert counted() == 2
    shop.operator.switch(CUSTOMER, allow_worse="p1 is another thing now")
    assert counted() == 3
    shop.operator.rollback(CUSTOMER)
    assert counted() == 2


def test_an_event_for_the_other_bundle_is_told_from_one_of_the_same_upload(shop: System) -> None:
    """Should two events of one id name two bundles, each is acted on."""
    shop.operator.start(CUSTOMER, NEW)
    sqs, queue = shop.app().sqs, shop.app().settings.next_queue_url
    for bundle in (OLD, NEW):
        image = IngestedImage(
            event_id="same",
            customer=CUSTOMER,
            product_id="p1",
            sha256=sha256(picture(1)),
            upload_key=str(UploadKey(CUSTOMER, "p1", sha256(picture(1)))),
            bundle=bundle,
        )
        sqs.send_message(QueueUrl=queue, MessageBody=json_format.MessageToJson(ImageUploaded(image=image)))
    shop.pump()
    assert done(shop)[0] == 1


class Died(Exception):
    """A process that ends where it stands."""


def settled(client: redis.Redis) -> dict[str, Any]:
    """All that must be the same whoever died on the way."""
    keys = {key.decode() for key in client.keys("magpie:{*}:*")}
    return {
        "old": index_of(client, OLD),
        "new": index_of(client, NEW),
        "serving": client.get("magpie:{shop}:serving"),
        "bundles": client.hkeys("magpie:{shop}:bundles"),
        "left": {key for key in keys if "due:" in key or "failed:" in key or key.endswith("changeover")},
        "customers": client.smembers("magpie:{CHANGE-OVERS}:customers"),
    }


@pytest.fixture(scope="session")
def ends() -> dict[str, Any]:
    """What a change-over of the shop ends with, once one has."""
    return {}


@pytest.fixture
def undisturbed(shop: System, redis_client: redis.Redis, ends: dict[str, Any]) -> dict[str, Any]:
    """The same; the shop is as it was before it."""
    if ends:
        return dict(ends)
    before = {key: redis_client.dump(key) for key in redis_client.keys("*")}
    changeover_system.change_over(shop)
    wanted = settled(redis_client)
    assert len(wanted["new"]) == 8
    assert (wanted["old"], wanted["left"], wanted["serving"]) == ({}, set(), NEW.encode())
    redis_client.flushall()
    for key, value in before.items():
        redis_client.restore(key, 0, value)  # type: ignore[arg-type]
    ends.update(wanted)
    return wanted


@pytest.mark.parametrize("step", Step)
def test_whoever_comes_after_one_that_was_killed_completes_it(
    shop: System, undisturbed: dict[str, Any], redis_client: redis.Redis, step: Step
) -> None:
    paths = (shop.redis_url, shop.aws_url, str(shop.old), str(shop.new))
    command = [sys.executable, "-m", "tests.integration.changeover_system", step.name, *paths]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    record = shop.app().change_overs.find(CUSTOMER)
    serving = shop.search(CUSTOMER, picture(3))
    assert serving[1][0] == "p3"  # it is served all the time, by one or the other
    assert serving[0] == (NEW if step.name in ("SWITCHED", *DROPS) else OLD)
    assert (record is None) == (step in (Step.ANNOUNCED, Step.DROPPED))
    changeover_system.change_over(shop)
    found = settled(redis_client)
    if step is Step.DROPPED:
        assert found.pop("customers") == {
            CUSTOMER.encode()
        }  # known for nothing: the background looks in vain
        undisturbed = {name: value for name, value in undisturbed.items() if name != "customers"}
    assert found == undisturbed
    assert shop.states(CUSTOMER, *PRODUCTS, "two") == [INDEXED] * 8


DROPS = ("DROP_BEGUN", "SNAPSHOTS_DROPPED", "DROPPED")


@pytest.mark.parametrize("step", [Step.PAGE_LISTED, Step.SENT, Step.MARKED])
def test_death_at_the_second_batch(
    shop: System, undisturbed: dict[str, Any], redis_client: redis.Redis, step: Step
) -> None:
    left = 2 if step is not Step.PAGE_LISTED else 1

    def reached(now: Step) -> None:
        nonlocal left
        if now is step:
            left -= 1
            if left == 0:
                raise Died

    shop.reached = reached
    with pytest.raises(Died):
        changeover_system.change_over(shop)
    shop.reached = lambda _step: None
    changeover_system.change_over(shop)
    assert settled(redis_client) == undisturbed
