"""Parked events in real dead-letter queues of a local SQS."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from google.protobuf import json_format

from local.ports import free_port
from magpie.errors import FailedPrecondition, Unavailable
from magpie.ingest.parking import REDRIVEN, WITH_QUEUES, ParkedEvent, Parking
from magpie.probe import message
from magpie.v1.events_pb2 import ImageUploaded, IngestedImage, ObjectsDetected, ObjectsEmbedded
from magpie.v1.image_pb2 import DetectedObject
from magpie.v1.probe_pb2 import SampledSearch

SHA256 = "a" * 64


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def urls(sqs: Any, prefix: str) -> Iterator[dict[str, str]]:
    """Queue name without its prefix -> URL. Each work queue gives up a message after one delivery."""
    found = {}
    for stage in WITH_QUEUES:
        parked = found[f"{stage}-parked"] = sqs.create_queue(QueueName=f"{prefix}-{stage}-parked")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=parked, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
        found[stage] = sqs.create_queue(
            QueueName=f"{prefix}-{stage}", Attributes={"VisibilityTimeout": "0", "RedrivePolicy": redrive}
        )["QueueUrl"]
    yield found
    for url in found.values():
        sqs.delete_queue(QueueUrl=url)


@pytest.fixture
def parking(sqs: Any, prefix: str, urls: dict[str, str]) -> Parking:
    return Parking(sqs, prefix, wait_seconds=0)


def image(product_id: str = "p1", customer: str = "shop") -> IngestedImage:
    return IngestedImage(event_id="e1", customer=customer, product_id=product_id, sha256=SHA256)


def body_of(event: ImageUploaded | ObjectsDetected | ObjectsEmbedded) -> str:
    return json_format.MessageToJson(event, indent=None)


def park(sqs: Any, url: str, body: str, **attributes: str) -> None:
    """As a function parks an event."""
    sqs.send_message(
        QueueUrl=url,
        MessageBody=body,
        MessageAttributes={
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        },
    )


def bodies(sqs: Any, url: str) -> list[str]:
    received: list[str] = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60).get(
        "Messages", []
    ):
        received += [message["Body"] for message in messages]
    return received


def left_in(sqs: Any, url: str) -> int:
    """Messages, also those that are hidden just now."""
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names))["Attributes"]
    return sum(int(attributes[name]) for name in names)


def test_nothing_is_parked_in_the_beginning(parking: Parking) -> None:
    assert parking.parked() == []
    assert parking.replay() == []


def test_a_parked_event_tells_its_image_and_why(parking: Parking, sqs: Any, urls: dict[str, str]) -> None:
    why = {"reason": "image: truncated", "code": "INVALID_ARGUMENT", "attempts": "3", "customer": "shop"}
    park(sqs, urls["detection-parked"], body_of(ImageUploaded(image=image())), **why)
    (event,) = parking.parked()
    assert event == ParkedEvent(
        stage="detection",
        reason="image: truncated",
        code="INVALID_ARGUMENT",
        attempts=3,
        customer="shop",
        product_id="p1",
        sha256=SHA256,
        since=event.since,
    )
    assert event.since > 1.7e9  # seconds, not milliseconds
    assert event.since < 1e11
    assert parking.parked() == [event]  # looking at it does not hide it


def test_an_event_that_the_queue_itself_moved_says_so(
    parking: Parking, sqs: Any, urls: dict[str, str]
) -> None:
    key = f"customers/shop/catalogue/a%2Fb/{SHA256}"
    envelope = {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {"object": {"key": key, "sequencer": "1"}},
    }
    sqs.send_message(QueueUrl=urls["detection"], MessageBody=json.dumps(envelope))
    for _ in range(2):  # no answer to the first delivery; in place of the second it is moved
        sqs.receive_message(QueueUrl=urls["detection"])
    (event,) = parking.parked()
    assert (event.reason, event.code, event.attempts) == (REDRIVEN, "", 0)
    assert (event.customer, event.product_id, event.sha256) == ("shop", "a/b", SHA256)


@pytest.mark.parametrize("body", ["", "nonsense", "[]", "{}", '{"image": 5}', '{"detail-type": "x"}', "null"])
def test_an_event_that_cannot_be_read_is_still_listed(
    parking: Parking, sqs: Any, urls: dict[str, str], body: str
) -> None:
    park(sqs, urls["embedding-parked"], body or " ", reason="image: is missing")
    (event,) = parking.parked()
    assert (event.stage, event.reason, event.customer) == ("embedding", "image: is missing", "")
    assert parking.parked(customer="shop") == []


def test_replay_moves_each_event_to_its_own_queue(parking: Parking, sqs: Any, urls: dict[str, str]) -> None:
    sent = {
        "detection": body_of(ImageUploaded(image=image())),
        "embedding": body_of(ObjectsDetected(image=image(), objects=[DetectedObject(label="x")])),
        "search": body_of(ObjectsEmbedded(image=image(), bundle="default@1")),
        "probe": message.body_of(SampledSearch(customer="shop")),
    }
    for stage, body in sent.items():
        park(sqs, urls[f"{stage}-parked"], body, reason="Redis does not answer")
    assert sorted(event.stage for event in parking.replay()) == sorted(sent)
    assert [left_in(sqs, urls[f"{stage}-parked"]) for stage in WITH_QUEUES] == [0, 0, 0, 0]
    assert {stage: bodies(sqs, urls[stage]) for stage in WITH_QUEUES} == {
        stage: [body] for stage, body in sent.items()
    }
    assert parking.replay() == []


def test_replay_takes_only_what_is_asked_for(parking: Parking, sqs: Any, urls: dict[str, str]) -> None:
    for customer, product_id in (("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")):
        event = ImageUploaded(image=image(product_id, customer))
        park(sqs, urls["detection-parked"], body_of(event), reason="x")
    assert [e.product_id for e in parking.replay(customer="a", product_id="2")] == ["2"]
    assert sorted((e.customer, e.product_id) for e in parking.parked()) == [
        ("a", "1"),
        ("b", "1"),
        ("b", "2"),
    ]
    assert {(e.customer, e.product_id) for e in parking.replay(customer="b")} == {("b", "1"), ("b", "2")}
    assert [(e.customer, e.product_id) for e in parking.parked(product_id="1")] == [("a", "1")]
    assert len(bodies(sqs, urls["detection"])) == 3


def test_more_than_one_batch(parking: Parking, sqs: Any, urls: dict[str, str]) -> None:
    ids = {f"p{number}" for number in range(23)}
    for product_id in ids:
        event = ImageUploaded(image=image(product_id))
        park(sqs, urls["search-parked"], body_of(event), reason="x")
    for _ in range(2):
        assert {event.product_id for event in parking.parked()} == ids
    assert {event.product_id for event in parking.replay()} == ids
    assert len(bodies(sqs, urls["search"])) == 23


def test_an_event_that_cannot_be_sent_stays_parked(parking: Parking, sqs: Any, urls: dict[str, str]) -> None:
    park(sqs, urls["detection-parked"], body_of(ImageUploaded(image=image())), reason="x")
    sqs.delete_queue(QueueUrl=urls["detection"])
    with pytest.raises(FailedPrecondition):
        parking.replay()
    assert len(parking.parked()) == 1
    sqs.create_queue(QueueName=urls["detection"].rsplit("/", 1)[1])


def test_missing_queues_and_an_sqs_that_is_away(sqs: Any) -> None:
    with pytest.raises(FailedPrecondition, match="there-is-none-detection-parked"):
        Parking(sqs, "there-is-none").parked()
    away = boto3.client(
        "sqs",
        endpoint_url=f"http://127.0.0.1:{free_port()}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(Unavailable):
        Parking(away, "magpie").parked()
