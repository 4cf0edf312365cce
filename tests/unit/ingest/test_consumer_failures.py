"""An event whose process was killed, and a queue that refuses an answer; all else: tests/integration."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from aws_lambda_powertools.utilities.idempotency.persistence.cache import CachePersistenceLayer
from botocore.exceptions import ClientError
from google.protobuf import json_format

from magpie.ingest.consumer import STEPS, EventConsumer, Queues
from magpie.rpc.registry import ServicerRegistry
from magpie.v1.detection_pb2_grpc import DetectionServiceServicer, add_DetectionServiceServicer_to_server
from magpie.v1.events_pb2 import ImageUploaded, IngestedImage, ObjectsDetected

MAX_RECEIVES = 3


class Killed(BaseException):
    """No handler of exceptions runs after this, as after `kill -9`."""


class Detection(DetectionServiceServicer):
    """Dies in its first event, if told to."""

    def __init__(self, *, dies: bool = False) -> None:
        self.dies = dies
        self.products: list[str] = []

    def Detect(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Not called here."""
        raise NotImplementedError

    def DetectUploaded(self, request: ImageUploaded, context: Any) -> ObjectsDetected:  # noqa: N802
        """Recorded."""
        if self.dies:
            raise Killed
        self.products.append(request.image.product_id)
        return ObjectsDetected(image=request.image)


class Sqs:
    """Keeps what is sent; refuses what belongs to one product."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.sent: list[tuple[str, str]] = []

    def send_message(self, *, QueueUrl: str, MessageBody: str, **_: Any) -> None:  # noqa: N803
        """As boto3's."""
        product_id = json_format.Parse(MessageBody, ObjectsDetected()).image.product_id
        if product_id == self.refused:
            response: Any = {
                "Error": {"Code": "InvalidParameterValue"},
                "ResponseMetadata": {"HTTPStatusCode": 400},
            }
            raise ClientError(response, "SendMessage")
        self.sent.append((QueueUrl, product_id))


def consumer_of(client: redis.Redis, detection: Detection, sqs: Sqs) -> EventConsumer:
    registry = ServicerRegistry()
    add_DetectionServiceServicer_to_server(detection, registry.server)
    queues = Queues("next", "parking", MAX_RECEIVES)
    ledger = SimpleNamespace(set_state=lambda *_: True)
    done = CachePersistenceLayer(client=client)  # type: ignore[arg-type]  # bytes keys are fine
    return EventConsumer(STEPS["detection"], registry, sqs, queues, ledger, done)


def invocation(seconds: float) -> Any:
    ends = time.monotonic() + seconds
    return SimpleNamespace(get_remaining_time_in_millis=lambda: max(0, int((ends - time.monotonic()) * 1000)))


def batch(*products: str, receives: int = 1) -> dict[str, Any]:
    def body(product_id: str) -> str:
        image = IngestedImage(
            event_id=f"event of {product_id}", customer="shop", product_id=product_id, sha256="0" * 64
        )
        return json_format.MessageToJson(ImageUploaded(image=image))

    attributes = {"ApproximateReceiveCount": str(receives)}
    return {"Records": [{"messageId": p, "body": body(p), "attributes": attributes} for p in products]}


def failures(answer: dict[str, Any]) -> list[str]:
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


def kill_in_mid_event(client: redis.Redis, seconds: float) -> None:
    with pytest.raises(Killed):
        consumer_of(client, Detection(dies=True), Sqs()).handle(batch("a"), invocation(seconds))


def test_a_killed_process_holds_its_event_until_its_invocation_would_have_ended(
    redis_client: redis.Redis,
) -> None:
    kill_in_mid_event(redis_client, seconds=0.5)
    detection, sqs = Detection(), Sqs()
    consumer = consumer_of(redis_client, detection, sqs)
    assert failures(consumer.handle(batch("a", receives=2), invocation(30))) == ["a"]
    assert detection.products == []
    time.sleep(0.6)
    assert failures(consumer.handle(batch("a", receives=2), invocation(30))) == []
    assert (detection.products, sqs.sent) == (["a"], [("next", "a")])


def test_an_event_that_another_process_holds_is_never_parked(redis_client: redis.Redis) -> None:
    kill_in_mid_event(redis_client, seconds=30)
    sqs = Sqs()
    consumer = consumer_of(redis_client, Detection(), sqs)
    assert failures(consumer.handle(batch("a", receives=MAX_RECEIVES), invocation(30))) == ["a"]
    assert sqs.sent == []


def test_an_answer_that_a_queue_refuses_fails_alone(redis_client: redis.Redis) -> None:
    detection, sqs = Detection(), Sqs(refused="b")
    consumer = consumer_of(redis_client, detection, sqs)
    assert failures(consumer.handle(batch("a", "b", "c"), invocation(30))) == ["b"]
    assert sqs.sent == [("next", "a"), ("next", "c")]
