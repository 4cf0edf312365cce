"""The recall probe on a real Redis and a real SQS: from the search that is sampled to the figure."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import boto3
import numpy as np
import pytest
import redis
from botocore.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from local.ports import free_port
from magpie.errors import InvalidArgument, Unavailable
from magpie.index.compact import CompactEngine
from magpie.index.engine import Engine, Found, Query, Weights
from magpie.index.filter_terms import Filter
from magpie.index.stored_vectors import CatalogueVectors
from magpie.ingest.parking import WITH_QUEUES, Parking
from magpie.ingest.parking_queue import ParkingQueue
from magpie.probe.consumer import ENOUGH, ProbeConsumer
from magpie.probe.judge import Judge
from magpie.probe.message import body_of
from magpie.probe.queue_sink import WAITING, QueueSink
from magpie.probe.recall import Recall, fused
from magpie.probe.sampling import Answered, Sampler, sampled_search
from magpie.rpc.context import CallContext
from magpie.services.search import SearchServicer
from magpie.store.catalogue import Catalogue
from magpie.store.probe_results import KEPT, ProbeResult, ProbeResults
from magpie.telemetry import ProbeMetrics
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import FindCandidatesRequest

BUNDLE = "default@1"
SPACES = {"identity": 8, "similar": 4}
WEIGHTS = {"identity": 3.0, "similar": 1.0}
MAX_RECEIVES = 3


class Lossy:
    """An engine that loses every tenth hit, for some customers."""

    def __init__(self, engine: Engine, customers: Sequence[str]) -> None:
        self._engine = engine
        self._customers = customers

    def find(
        self,
        customer: str,
        bundle: str,
        queries: Sequence[Query],
        condition: Filter | None,
        limit: int,
        weights: Weights | None = None,
    ) -> Found:
        """As the port says, but for the hits."""
        found = self._engine.find(customer, bundle, queries, condition, limit, weights)
        if customer not in self._customers:
            return found
        ranked = [sorted(row, key=lambda c: -fused(c, weights or {"identity": 1})) for row in found.results]
        return replace(found, results=[[c for rank, c in enumerate(r, 1) if rank % 10] for r in ranked])


class Away:
    """An engine whose index cannot be read."""

    def find(self, *_: Any) -> Found:
        """As the port says."""
        raise Unavailable("S3 does not answer")


@pytest.fixture
def catalogue(redis_client: redis.Redis) -> Catalogue:
    return Catalogue(redis_client)


@pytest.fixture
def results(redis_client: redis.Redis) -> ProbeResults:
    return ProbeResults(redis_client)


@pytest.fixture
def prefix(sqs: Any) -> Iterator[str]:
    """Of queues of the test's own."""
    name = f"probe-{uuid.uuid4().hex[:12]}"
    urls = [
        sqs.create_queue(QueueName=f"{name}-{queue}{suffix}")["QueueUrl"]
        for queue in WITH_QUEUES
        for suffix in ("", "-parked")
    ]
    yield name
    for url in urls:
        sqs.delete_queue(QueueUrl=url)


def url(sqs: Any, name: str) -> str:
    return str(sqs.get_queue_url(QueueName=name)["QueueUrl"])


def unit(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    vectors = {space: rng.standard_normal(d).astype("<f4") for space, d in SPACES.items()}
    return {space: vector / np.linalg.norm(vector) for space, vector in vectors.items()}


def embedded(vectors: dict[str, NDArray[np.float32]]) -> EmbeddedObject:
    return EmbeddedObject(vectors=[Vector(space=s, values=v.tobytes()) for s, v in vectors.items()])


def write(catalogue: Catalogue, customer: str, product_id: str, rng: np.random.Generator, price: int) -> None:
    catalogue.upsert_products(customer, [Product(id=product_id, price=price, images=["a"])], BUNDLE)
    image = IngestedImage(event_id="e", customer=customer, product_id=product_id, sha256="a")
    catalogue.write_objects(ObjectsEmbedded(image=image, objects=[embedded(unit(rng))], bundle=BUNDLE))


def request(
    rng: np.random.Generator, *filters: str, queries: int = 1, **values: Any
) -> FindCandidatesRequest:
    return FindCandidatesRequest(
        queries=[embedded(unit(rng)) for _ in range(queries)], bundle=BUNDLE, filters=filters, **values
    )


def context(customer: str) -> CallContext:
    return CallContext(customer=customer, trace_id=f"trace-of-{customer}")


def records(sqs: Any, queue: str, receives: int = 1) -> list[dict[str, Any]]:
    """What lies in a queue, as a function gets it."""
    found: list[dict[str, Any]] = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
        for message in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            found.append(record(message["Body"], receives))
    return found


def record(body: str, receives: int = 1) -> dict[str, Any]:
    return {"messageId": body[-40:], "body": body, "attributes": {"ApproximateReceiveCount": str(receives)}}


def metrics(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines() if '"_aws"' in line]


def no_loss() -> None:
    raise AssertionError("a sampled search was dropped")


def test_an_engine_that_loses_every_tenth_hit_shows_a_recall_of_nine_tenths_for_its_customer_alone(
    catalogue: Catalogue, results: ProbeResults, sqs: Any, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        for customer in ("shop", "other"):  # the same product ids
            write(catalogue, customer, f"p{number}", rng, price=number)
    time.sleep(0.01)  # what is written in the same millisecond counts as written after the search
    sink = QueueSink(lambda: sqs, url(sqs, f"{prefix}-probe"), no_loss)
    engine = Lossy(CompactEngine(catalogue), ["shop"])
    servicer = SearchServicer(engine, catalogue, CatalogueVectors(catalogue), Sampler(1.0, sink))
    for number in range(ENOUGH):
        for customer in ("shop", "other"):
            asked = request(rng, f"price < {20 + number}", queries=2, weights=WEIGHTS)
            assert len(servicer.FindCandidates(asked, context(customer)).results) == 2
            sink.flush()
    judge = Judge(CompactEngine(catalogue), catalogue, clocks_differ=0)
    parking = ParkingQueue(sqs, url(sqs, f"{prefix}-probe-parked"), MAX_RECEIVES)
    consumer = ProbeConsumer(judge, results, ProbeMetrics(), parking)
    capsys.readouterr()
    batch = records(sqs, url(sqs, f"{prefix}-probe"))
    assert consumer.handle({"Records": batch}, None) == {"batchItemFailures": []}

    assert [r.recall for r in results.last("shop", 100)] == [0.9] * ENOUGH
    assert [r.recall for r in results.last("other", 100)] == [1.0] * ENOUGH
    assert {(r.hits, r.wanted, r.bundle, r.trace_id) for r in results.last("shop", 100)} == {
        (18, 20, BUNDLE, "trace-of-shop")
    }
    emitted = metrics(capsys.readouterr().out)
    of_customers = {
        (m["customer"], m["RecallAt10"][0]) for m in emitted if "RecallAt10" in m and m["service"] == "probe"
    }
    assert of_customers == {("shop", 0.9), ("other", 1.0)}
    assert sum(m["Probes"][0] for m in emitted if "Probes" in m) == 2 * ENOUGH
    # Only the twentieth probe of each says something of the customer; the alarm takes the minimum.
    recent = [m for m in emitted if "RecentRecallAt10" in m]
    assert sorted(m["RecentRecallAt10"][0] for m in recent) == pytest.approx([0.9, 1.0])
    assert all("customer" not in m for m in recent)


def test_without_weights_each_space_is_probed(catalogue: Catalogue, results: ProbeResults) -> None:
    rng = np.random.default_rng(1)
    for number in range(40):
        write(catalogue, "shop", f"p{number}", rng, price=0)
    time.sleep(0.01)
    asked = request(rng)
    engine = CompactEngine(catalogue)
    queries = [{v.space: np.frombuffer(v.values, "<f4") for v in q.vectors} for q in asked.queries]
    found = engine.find("shop", BUNDLE, queries, None, 100)
    # All of the ten nearest in `similar` are lost.
    near = sorted(found.results[0], key=lambda c: -c.similarity["similar"])[:10]
    lossy = replace(found, results=[[c for c in found.results[0] if c not in near]])
    judge = Judge(engine, catalogue, clocks_differ=0)
    answered = Answered("shop", asked, lossy, time.time(), "t")
    both = {c.product_id for c in near} & {
        c.product_id for c in sorted(found.results[0], key=lambda c: -c.similarity["identity"])[:10]
    }
    assert judge.judge(sampled_search(answered)) == Recall(10 - len(both), 20)
    assert judge.judge(sampled_search(replace(answered, found=found))) == Recall(20, 20)


class Broken:
    """A sink that does what it must not."""

    def offer(self, answered: Answered) -> None:
        """Raises."""
        raise RuntimeError(answered.trace_id)


def test_no_sink_fails_or_holds_up_a_search(catalogue: Catalogue, sqs: Any) -> None:
    rng = np.random.default_rng(2)
    write(catalogue, "shop", "p", rng, price=1)
    lost: list[int] = []
    nobody = f"http://127.0.0.1:{free_port()}"
    brief = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    sinks = {
        "raises": Broken(),
        "finds nobody": QueueSink(
            lambda: boto3.client("sqs", endpoint_url=nobody, config=brief, **keys),
            f"{nobody}/queue",
            lambda: lost.append(1),
        ),
        "finds no queue": QueueSink(lambda: sqs, "http://127.0.0.1/no/queue", lambda: lost.append(1)),
    }
    for sink in sinks.values():
        servicer = SearchServicer(
            CompactEngine(catalogue), catalogue, CatalogueVectors(catalogue), Sampler(1.0, sink)
        )
        answer = servicer.FindCandidates(request(rng), context("shop"))
        assert [c.product_id for c in answer.results[0].candidates] == ["p"]
        if isinstance(sink, QueueSink):
            sink.flush()
    assert len(lost) == 2


def test_what_does_not_fit_into_memory_is_dropped_and_counted() -> None:
    lost: list[int] = []
    started, sent = [], []

    class Slow:
        def send_message(self, **message: str) -> None:
            started.append(1)
            time.sleep(0.05)
            sent.append(message)

    sink = QueueSink(Slow, "queue", lambda: lost.append(1))
    offered = WAITING + 10
    start = time.perf_counter()
    for number in range(offered):
        sink.offer(Answered("shop", request(np.random.default_rng(3)), Found([[]], []), 0.0, str(number)))
    assert time.perf_counter() - start < 0.05 * offered / 2  # nobody waited for the queue
    sink.flush()
    assert len(sent) + len(lost) == offered
    assert len(sent) in (WAITING, WAITING + 1)


def test_a_probe_that_fails_is_tried_again_and_parked_in_the_end(
    catalogue: Catalogue, results: ProbeResults, sqs: Any, prefix: str
) -> None:
    rng = np.random.default_rng(4)
    write(catalogue, "shop", "p", rng, price=1)
    asked = request(rng)
    good = body_of(sampled_search(Answered("shop", asked, Found([[]], []), time.time(), "t")))
    parking = ParkingQueue(sqs, url(sqs, f"{prefix}-probe-parked"), MAX_RECEIVES)
    away = ProbeConsumer(Judge(Away(), catalogue), results, ProbeMetrics(), parking)
    for receives in range(1, MAX_RECEIVES):
        failures = away.handle({"Records": [record(good, receives)]}, None)["batchItemFailures"]
        assert failures == [{"itemIdentifier": good[-40:]}]
        assert Parking(sqs, prefix, wait_seconds=0).parked() == []
    assert away.handle({"Records": [record(good, MAX_RECEIVES), record("bad")]}, None) == {
        "batchItemFailures": []
    }
    parked = {event.code: event for event in Parking(sqs, prefix, wait_seconds=0).parked()}
    assert parked.keys() == {"UNAVAILABLE", "INVALID_ARGUMENT"}
    first = parked["UNAVAILABLE"]
    assert (first.stage, first.customer, first.attempts) == ("probe", "shop", MAX_RECEIVES)
    assert first.reason == "S3 does not answer"
    assert parked["INVALID_ARGUMENT"].customer == ""
    assert results.last("shop", 10) == []

    # Sent again when S3 is back, it is judged: the engine had found nothing.
    assert [e.customer for e in Parking(sqs, prefix, wait_seconds=0).replay(customer="shop")] == ["shop"]
    time.sleep(0.01)
    back = ProbeConsumer(
        Judge(CompactEngine(catalogue), catalogue, clocks_differ=-1), results, ProbeMetrics(), parking
    )
    assert back.handle({"Records": records(sqs, url(sqs, f"{prefix}-probe"))}, None) == {
        "batchItemFailures": []
    }
    assert [(r.hits, r.wanted) for r in results.last("shop", 10)] == [(0, 2)]  # in either space


def test_a_stale_exact_answer_is_waited_for_and_a_dropped_bundle_is_not(
    catalogue: Catalogue,
) -> None:
    rng = np.random.default_rng(5)
    asked = request(rng)
    search = sampled_search(Answered("shop", asked, Found([[]], []), time.time(), "t"))

    class Stale:
        def find(self, *_: Any) -> Found:
            return Found([[]], [], stale=True)

    with pytest.raises(Unavailable, match="stale"):
        Judge(Stale(), catalogue).judge(search)
    write(catalogue, "shop", "p", rng, price=1)
    search.request.bundle = "old@1"
    assert Judge(CompactEngine(catalogue), catalogue).judge(search) == Recall()
    search.request.bundle = BUNDLE
    search.request.queries[0].vectors[0].values = b""
    with pytest.raises(InvalidArgument, match=r"queries\[0\]"):
        Judge(CompactEngine(catalogue), catalogue).judge(search)


def test_a_search_from_before_what_the_stream_remembers_is_not_judged(
    catalogue: Catalogue,
    redis_client: redis.Redis,
    results: ProbeResults,
    sqs: Any,
    prefix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(8)
    write(catalogue, "shop", "p", rng, price=1)
    search = sampled_search(Answered("shop", request(rng), Found([[]], []), time.time() - 60, "t"))
    redis_client.xtrim("magpie:{shop}:changes", maxlen=1, approximate=False)
    judge = Judge(CompactEngine(catalogue), catalogue)
    assert judge.judge(search) == Recall()
    parking = ParkingQueue(sqs, url(sqs, f"{prefix}-probe-parked"), MAX_RECEIVES)
    capsys.readouterr()
    ProbeConsumer(judge, results, ProbeMetrics(), parking).handle(
        {"Records": [record(body_of(search))]}, None
    )
    assert [(r.wanted, r.recall) for r in results.last("shop", 9)] == [(0, None)]
    names = {name for blob in metrics(capsys.readouterr().out) for name in blob if name[0].isupper()}
    assert names == {"Probes"}


def test_the_mean_that_is_watched_is_of_the_bundle_that_was_searched(
    catalogue: Catalogue, results: ProbeResults, sqs: Any, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(9)
    write(catalogue, "shop", "p", rng, price=1)
    for _ in range(ENOUGH):
        results.add("shop", ProbeResult(0.0, "old@1", 0, 10, "t"))
    for _ in range(ENOUGH - 1):
        results.add("shop", ProbeResult(0.0, BUNDLE, 5, 10, "t"))
    time.sleep(0.01)
    asked = request(rng, weights=WEIGHTS)
    queries = [{v.space: np.frombuffer(v.values, "<f4") for v in q.vectors} for q in asked.queries]
    engine = CompactEngine(catalogue)
    found = engine.find("shop", BUNDLE, queries, None, 100, WEIGHTS)
    body = body_of(sampled_search(Answered("shop", asked, found, time.time(), "t")))
    parking = ParkingQueue(sqs, url(sqs, f"{prefix}-probe-parked"), MAX_RECEIVES)
    capsys.readouterr()
    judge = Judge(engine, catalogue, clocks_differ=0)
    ProbeConsumer(judge, results, ProbeMetrics(), parking).handle({"Records": [record(body)]}, None)
    (recent,) = [m["RecentRecallAt10"] for m in metrics(capsys.readouterr().out) if "RecentRecallAt10" in m]
    assert recent == pytest.approx([(0.5 * (ENOUGH - 1) + 1) / ENOUGH])


actions = st.lists(
    st.tuples(st.integers(0, 39), st.sampled_from(["move", "price", "delete"]), st.integers(0, 9)),
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(actions, st.integers(1, 40), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_busy_catalogue_does_not_look_like_lost_recall(
    redis_client: redis.Redis, meanwhile: list[tuple[int, str, int]], limit: int, fuse: bool, seed: int
) -> None:
    """Between the answer and its probe anything may be written, moved out of the filter, or deleted."""
    redis_client.flushall()
    catalogue = Catalogue(redis_client)
    rng = np.random.default_rng(seed)
    for number in range(25):
        write(catalogue, "shop", f"p{number}", rng, price=number % 10)
    time.sleep(0.003)
    asked = request(rng, "price < 7", queries=2, limit_per_space=limit, weights=WEIGHTS if fuse else None)
    queries = [{v.space: np.frombuffer(v.values, "<f4") for v in q.vectors} for q in asked.queries]
    kept: list[Answered] = []

    class Keep:
        def offer(self, answered: Answered) -> None:
            kept.append(answered)

    SearchServicer(
        CompactEngine(catalogue), catalogue, CatalogueVectors(catalogue), Sampler(1.0, Keep())
    ).FindCandidates(asked, context("shop"))
    for number, action, price in meanwhile:
        match action:
            case "move":
                write(catalogue, "shop", f"p{number}", rng, price)
            case "price":
                product = Product(id=f"p{number}", price=price, images=["a"])
                catalogue.upsert_products("shop", [product], BUNDLE)
            case "delete":
                catalogue.delete_products("shop", [f"p{number}"])
    (answered,) = kept
    recall = Judge(CompactEngine(catalogue), catalogue, clocks_differ=0).judge(sampled_search(answered))
    assert recall.hits == recall.wanted
    assert len(queries) == 2
    if not meanwhile:
        there = sum(number % 10 < 7 for number in range(25))
        assert recall.wanted == (2 if fuse else 4) * min(10, limit, there)


def test_the_change_stream_tells_what_changed_or_that_it_cannot(
    catalogue: Catalogue, redis_client: redis.Redis
) -> None:
    rng = np.random.default_rng(6)
    assert catalogue.products_changed_since("shop", 0) == set()
    write(catalogue, "shop", "before", rng, price=1)
    write(catalogue, "other", "theirs", rng, price=1)
    time.sleep(0.005)
    since = time.time()
    assert catalogue.products_changed_since("shop", since) == set()
    write(catalogue, "shop", "after", rng, price=1)
    catalogue.delete_products("shop", ["before"])
    assert catalogue.products_changed_since("shop", since) == {"before", "after"}
    assert catalogue.products_changed_since("shop", 0) == {"before", "after"}

    redis_client.xtrim("magpie:{shop}:changes", maxlen=4, approximate=False)
    assert catalogue.products_changed_since("shop", since) == {"before", "after"}
    redis_client.xtrim("magpie:{shop}:changes", maxlen=2, approximate=False)
    assert catalogue.products_changed_since("shop", since) is None
    redis_client.xtrim("magpie:{shop}:changes", maxlen=0, approximate=False)
    assert catalogue.products_changed_since("shop", since) is None
    assert catalogue.products_changed_since("other", 0) == {"theirs"}


def test_too_many_changes_are_not_looked_through(
    catalogue: Catalogue, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magpie.store.catalogue._CHANGES_SINCE", 3)
    rng = np.random.default_rng(7)
    write(catalogue, "shop", "p0", rng, price=1)  # two entries
    assert catalogue.products_changed_since("shop", 0) == {"p0"}
    write(catalogue, "shop", "p1", rng, price=1)
    assert catalogue.products_changed_since("shop", 0) is None
    assert redis_client.xlen("magpie:{shop}:changes") == 4


def test_only_the_last_results_of_each_customer_are_kept(
    results: ProbeResults, redis_client: redis.Redis
) -> None:
    for number in range(KEPT + 5):
        results.add("shop", ProbeResult(float(number), BUNDLE, 1, 2, "t"))
    results.add("other", ProbeResult(0.0, BUNDLE, 0, 0, "t"))
    assert [r.at for r in results.last("shop", 1000)] == [float(n) for n in range(KEPT + 4, 4, -1)]
    assert [r.at for r in results.last("shop", 2)] == [KEPT + 4, KEPT + 3]
    assert [(r.hits, r.recall) for r in results.last("other", 9)] == [(0, None)]
    assert results.last("shop", 1)[0].recall == 0.5
    # They may be evicted, the catalogue may not.
    assert 0 < redis_client.ttl("magpie:{shop}:probes") <= 30 * 24 * 3600
