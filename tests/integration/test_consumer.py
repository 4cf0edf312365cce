"""A function behind its queue, with what it remembers in a real Redis."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from aws_lambda_powertools.utilities.idempotency.persistence.cache import CachePersistenceLayer
from botocore.exceptions import ClientError, EndpointConnectionError
from google.protobuf import json_format

from magpie.errors import InvalidArgument, MagpieError, Unavailable
from magpie.ingest.consumer import STEPS, EventConsumer, Queues
from magpie.rpc.context import CallContext
from magpie.rpc.registry import ServicerRegistry
from magpie.v1.catalog_pb2 import ImageStatus
from magpie.v1.detection_pb2 import DetectRequest, DetectResponse
from magpie.v1.detection_pb2_grpc import DetectionServiceServicer, add_DetectionServiceServicer_to_server
from magpie.v1.events_pb2 import ImageIndexed, ImageUploaded, IngestedImage, ObjectsDetected, ObjectsEmbedded
from magpie.v1.image_pb2 import DetectedObject
from magpie.v1.search_pb2 import FindCandidatesRequest, FindCandidatesResponse
from magpie.v1.search_pb2_grpc import SearchServiceServicer, add_SearchServiceServicer_to_server

NEXT, PARKING = "https://queues/next", "https://queues/parking"
MAX_RECEIVES = 3
SHA256 = "0123456789abcdef" * 4
ENVELOPE = {
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "detail": {
        "bucket": {"name": "magpie"},
        "object": {"key": f"customers/shop/catalogue/a%2Fb/{SHA256}", "etag": "e", "sequencer": "1"},
    },
}


@dataclass
class Detection(DetectionServiceServicer):
    """Finds one object in every picture, unless its product is one of `troubles`."""

    troubles: dict[str, Exception] = field(default_factory=dict)
    seen: list[tuple[ImageUploaded, CallContext]] = field(default_factory=list)

    def Detect(self, request: DetectRequest, context: Any) -> DetectResponse:  # noqa: N802
        """No event calls it."""
        raise NotImplementedError

    def DetectUploaded(self, request: ImageUploaded, context: Any) -> ObjectsDetected:  # noqa: N802
        """Recorded."""
        self.seen.append((request, context))
        if trouble := self.troubles.get(request.image.product_id):
            raise trouble
        return ObjectsDetected(image=request.image, objects=[DetectedObject(score=0.5)])

    @property
    def products(self) -> list[str]:
        """In the order in which they were worked on."""
        return [request.image.product_id for request, _ in self.seen]


@dataclass
class Sqs:
    """Keeps what is sent; a queue with a trouble takes nothing."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    troubles: dict[str, Exception] = field(default_factory=dict)

    def send_message(self, **message: Any) -> dict[str, str]:
        """As boto3's."""
        if trouble := self.troubles.get(message["QueueUrl"]):
            raise trouble
        self.sent.append(message)
        return {"MessageId": "m"}

    def to(self, queue: str) -> list[dict[str, Any]]:
        """What lies in a queue."""
        return [message for message in self.sent if message["QueueUrl"] == queue]

    def parked(self) -> list[tuple[str, dict[str, str]]]:
        """Bodies and attributes in the parking queue."""
        return [
            (
                message["MessageBody"],
                {name: value["StringValue"] for name, value in message["MessageAttributes"].items()},
            )
            for message in self.to(PARKING)
        ]


@dataclass
class Ledger:
    """Keeps what is entered."""

    entered: list[tuple[str, str, str]] = field(default_factory=list)
    trouble: MagpieError | None = None

    def set_state(self, image: IngestedImage, state: ImageStatus.State.ValueType, reason: str = "") -> bool:
        """As the catalogue's."""
        if self.trouble:
            raise self.trouble
        self.entered.append((image.product_id, ImageStatus.State.Name(state), reason))
        return True


@dataclass
class System:
    """The detection step behind its queue. `deliver` gives the ids of the items to be delivered again."""

    detection: Detection
    sqs: Sqs
    ledger: Ledger
    registry: ServicerRegistry
    consumer: EventConsumer

    def deliver(self, *records: dict[str, Any]) -> list[str]:
        """One batch."""
        return failures(self.consumer.handle({"Records": list(records)}, INVOCATION))


INVOCATION = SimpleNamespace(get_remaining_time_in_millis=lambda: 30_000)


def failures(answer: dict[str, Any]) -> list[str]:
    """Item ids of a partial batch response."""
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


def body_of(product_id: str, event_id: str = "") -> str:
    """An event as the step before sends it."""
    image = IngestedImage(
        event_id=event_id or f"event of {product_id}",
        customer="shop",
        product_id=product_id,
        sha256=SHA256,
        upload_key="k",
        trace_id=f"trace-of-{product_id}",
    )
    return json_format.MessageToJson(ImageUploaded(image=image))


def record(body: str, receives: int = 1) -> dict[str, Any]:
    """An item of a batch; its id is its body's, so that failures are easy to name."""
    return {"messageId": body, "body": body, "attributes": {"ApproximateReceiveCount": str(receives)}}


def make(client: redis.Redis, queues: Queues) -> System:
    """A consumer as a fresh process has it; Redis is what two of them share."""
    detection, sqs, ledger = Detection(), Sqs(), Ledger()
    registry = ServicerRegistry()
    add_DetectionServiceServicer_to_server(detection, registry.server)
    done = CachePersistenceLayer(client=client)  # type: ignore[arg-type]  # bytes keys are fine
    consumer = EventConsumer(STEPS["detection"], registry, sqs, queues, ledger, done)
    return System(detection, sqs, ledger, registry, consumer)


@pytest.fixture
def start(redis_client: redis.Redis) -> Callable[[], System]:
    """Starts another process on the same Redis."""
    return lambda: make(redis_client, Queues(NEXT, PARKING, MAX_RECEIVES))


@pytest.fixture
def system(start: Callable[[], System]) -> System:
    """The first process."""
    return start()


def forwarded(sqs: Sqs) -> list[ObjectsDetected]:
    """Events in the next queue."""
    return [json_format.Parse(message["MessageBody"], ObjectsDetected()) for message in sqs.to(NEXT)]


def test_an_event_is_worked_on_entered_and_forwarded(system: System) -> None:
    assert system.deliver(record(body_of("a"))) == []
    ((request, context),) = system.detection.seen
    assert (context.customer, context.trace_id) == ("shop", "trace-of-a")
    remaining = context.remaining()
    assert remaining is not None
    assert 0 < remaining <= 30
    assert forwarded(system.sqs) == [
        ObjectsDetected(image=request.image, objects=[DetectedObject(score=0.5)])
    ]
    assert system.ledger.entered == [("a", "STATE_EMBEDDING", "")]
    assert system.sqs.to(PARKING) == []


def test_only_the_failing_item_of_a_batch_is_returned(system: System) -> None:
    system.detection.troubles["b"] = Unavailable("S3 is away")
    bodies = [body_of(product_id) for product_id in "abc"]
    assert system.deliver(*map(record, bodies)) == [bodies[1]]
    assert system.detection.products == ["a", "b", "c"]
    assert [event.image.product_id for event in forwarded(system.sqs)] == ["a", "c"]
    assert system.sqs.to(PARKING) == []
    assert system.ledger.entered == [
        ("a", "STATE_EMBEDDING", ""),
        ("b", "STATE_DETECTING", "S3 is away"),
        ("c", "STATE_EMBEDDING", ""),
    ]


def test_what_no_retry_cures_is_parked_at_once(system: System) -> None:
    system.detection.troubles["a"] = InvalidArgument("image", "is\ntruncated")
    body = body_of("a")
    assert system.deliver(record(body)) == []
    # SQS refuses control characters.
    attributes = {"reason": "image: is truncated", "code": "INVALID_ARGUMENT", "attempts": "1"}
    assert system.sqs.parked() == [(body, attributes)]
    assert system.ledger.entered == [("a", "STATE_FAILED", "image: is\ntruncated")]
    assert system.sqs.to(NEXT) == []


def test_what_a_retry_may_cure_is_delivered_again_and_parked_in_the_end(system: System) -> None:
    system.detection.troubles["a"] = Unavailable("S3 is away")
    body = body_of("a")
    for receives in range(1, MAX_RECEIVES):
        assert system.deliver(record(body, receives)) == [body]
        assert system.sqs.sent == []
    assert system.deliver(record(body, MAX_RECEIVES)) == []
    attributes = {"reason": "S3 is away", "code": "UNAVAILABLE", "attempts": str(MAX_RECEIVES)}
    assert system.sqs.parked() == [(body, attributes)]
    assert system.detection.products == ["a"] * MAX_RECEIVES
    assert [state for _, state, _ in system.ledger.entered] == [
        *["STATE_DETECTING"] * (MAX_RECEIVES - 1),
        "STATE_FAILED",
    ]


def test_an_unforeseen_error_is_delivered_again_and_keeps_its_details(system: System) -> None:
    system.detection.troubles["a"] = ZeroDivisionError("secret")
    body = body_of("a")
    assert system.deliver(record(body)) == [body]
    ((_, state, reason),) = system.ledger.entered
    assert state == "STATE_DETECTING"
    assert "secret" not in reason


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no json",
        "[]",
        "{}",
        "5",
        "null",
        "{",
        '{"image": 5}',
        '{"picture": {}}',
        json.dumps({**ENVELOPE, "source": "my.app"}),
        json.dumps({**ENVELOPE, "detail": {}}),
    ],
)
def test_an_unreadable_body_is_parked(system: System, body: str) -> None:
    good = body_of("good")
    assert system.deliver(record(body), record(good)) == []
    ((parked, attributes),) = system.sqs.parked()
    assert parked == body
    assert attributes["code"] == "INVALID_ARGUMENT"
    assert attributes["reason"].startswith("event")
    assert system.detection.products == ["good"]
    assert [product_id for product_id, _, _ in system.ledger.entered] == ["good"]  # nobody to enter it for


def test_a_redelivery_is_not_worked_on_but_its_answer_is_forwarded_again(
    system: System, start: Callable[[], System]
) -> None:
    # The first process died after its work and before the answer was in the next queue.
    system.sqs.troubles[NEXT] = EndpointConnectionError(endpoint_url=NEXT)
    body = body_of("a")
    assert system.deliver(record(body)) == [body]
    assert system.detection.products == ["a"]

    second = start()
    assert second.deliver(record(body, 2)) == []
    assert second.deliver(record(body, 3)) == []
    assert second.detection.products == []
    once, twice = forwarded(second.sqs)
    assert once == twice
    assert once.image.product_id == "a"
    assert [found.score for found in once.objects] == [0.5]


def test_another_event_of_the_same_picture_is_worked_on(system: System) -> None:
    assert system.deliver(record(body_of("a", "first upload")), record(body_of("a", "second upload"))) == []
    assert system.detection.products == ["a", "a"]


def test_a_failed_event_is_worked_on_again_when_it_is_replayed(system: System) -> None:
    system.detection.troubles["a"] = InvalidArgument("image", "is truncated")
    body = body_of("a")
    assert system.deliver(record(body)) == []
    assert len(system.sqs.parked()) == 1

    del system.detection.troubles["a"]
    assert system.deliver(record(body)) == []
    assert system.detection.products == ["a", "a"]
    assert [event.image.product_id for event in forwarded(system.sqs)] == ["a"]
    assert system.ledger.entered[-1] == ("a", "STATE_EMBEDDING", "")


def test_an_event_in_work_elsewhere_is_delivered_again(system: System, start: Callable[[], System]) -> None:
    body = body_of("a")
    other, answers = start(), []

    class Slow(Detection):
        def DetectUploaded(self, request: ImageUploaded, context: Any) -> ObjectsDetected:  # noqa: N802
            answers.append(other.deliver(record(body)))  # meanwhile
            return super().DetectUploaded(request, context)

    slow = Slow()
    add_DetectionServiceServicer_to_server(slow, system.registry.server)
    assert system.deliver(record(body)) == []
    assert answers == [[body]]
    assert (slow.products, other.detection.products) == (["a"], [])
    assert other.sqs.sent == []


def test_the_envelope_of_s3_is_understood(system: System) -> None:
    body = json.dumps(ENVELOPE)
    assert system.deliver(record(body)) == []
    ((request, context),) = system.detection.seen
    assert (request.image.product_id, request.image.sha256) == ("a/b", SHA256)
    assert (context.customer, context.trace_id) == ("shop", ENVELOPE["id"])
    assert [event.image for event in forwarded(system.sqs)] == [request.image]


@pytest.mark.parametrize(
    "trouble",
    [
        EndpointConnectionError(endpoint_url=PARKING),
        ClientError({"Error": {"Code": "QueueDoesNotExist"}, "ResponseMetadata": {}}, "SendMessage"),
    ],
    ids=["away", "missing"],
)
def test_what_cannot_be_parked_is_left_to_the_queue(system: System, trouble: Exception) -> None:
    system.detection.troubles["a"] = InvalidArgument("image", "is truncated")
    system.sqs.troubles[PARKING] = trouble
    bad, good = body_of("a"), body_of("good")
    assert system.deliver(record(bad), record(good)) == [bad]
    # It has not failed for good before it lies in the parking queue.
    assert system.ledger.entered == [("good", "STATE_EMBEDDING", "")]


def test_a_ledger_that_is_away_leaves_the_item_to_the_queue(system: System) -> None:
    system.ledger.trouble = Unavailable("Redis is away")
    body = body_of("a")
    assert system.deliver(record(body)) == [body]
    system.ledger.trouble = None
    assert system.deliver(record(body, 2)) == []
    assert system.detection.products == ["a"]
    assert len(forwarded(system.sqs)) == 1


def test_without_a_parking_queue_everything_is_left_to_the_queue(redis_client: redis.Redis) -> None:
    system = make(redis_client, Queues(NEXT, "", MAX_RECEIVES))
    system.detection.troubles["a"] = InvalidArgument("image", "is truncated")
    body = body_of("a")
    assert system.deliver(record(body, MAX_RECEIVES + 1)) == [body]
    assert system.sqs.sent == []


def test_the_last_step_forwards_nothing_and_leaves_the_ledger_to_its_servicer(
    redis_client: redis.Redis,
) -> None:
    indexed = []

    class Search(SearchServiceServicer):
        def FindCandidates(  # noqa: N802
            self, request: FindCandidatesRequest, context: Any
        ) -> FindCandidatesResponse:
            raise NotImplementedError

        def IndexEmbedded(self, request: ObjectsEmbedded, context: Any) -> ImageIndexed:  # noqa: N802
            indexed.append(request.image.product_id)
            return ImageIndexed(image=request.image)

    registry, sqs, ledger = ServicerRegistry(), Sqs(), Ledger()
    add_SearchServiceServicer_to_server(Search(), registry.server)
    done = CachePersistenceLayer(client=redis_client)  # type: ignore[arg-type]  # bytes keys are fine
    queues = Queues("", PARKING, MAX_RECEIVES)
    consumer = EventConsumer(STEPS["search"], registry, sqs, queues, ledger, done)
    assert failures(consumer.handle({"Records": [record(body_of("a"))]}, INVOCATION)) == []
    assert (indexed, sqs.sent, ledger.entered) == (["a"], [], [])
