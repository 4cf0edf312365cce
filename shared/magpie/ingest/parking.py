"""Events that kept failing: which they are, why, and sending them again.

A function parks an event in the dead-letter queue of its own queue, with the reason as a message attribute.
What SQS moved there by itself, because the function died each time before it could judge, has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from magpie.errors import InvalidArgument
from magpie.ingest.events import image_uploaded
from magpie.probe.message import search_of
from magpie.store.aws_connection import aws_answers
from magpie.v1.events_pb2 import IngestedImage

STAGES = ("detection", "embedding", "search")  # of the ingest, in its order
WITH_QUEUES = (*STAGES, "probe")  # every function that works behind a queue
REDRIVEN = "moved by the queue after its last delivery: the function never answered, see its log"
_HELD_SECONDS = 300  # a message that was received is hidden from others for so long
_BATCH = 10  # SQS's limit


@dataclass(frozen=True)
class ParkedEvent:
    """An event that waits for somebody."""

    stage: str  # of WITH_QUEUES: whose queue it comes from
    reason: str
    code: str  # name of the gRPC status; empty if the queue moved it
    attempts: int  # 0: unknown, the queue moved it
    customer: str  # empty, as are product_id and sha256, if the event cannot be read
    product_id: str
    sha256: str
    since: float  # seconds since the epoch


@dataclass(frozen=True)
class _Message:
    event: ParkedEvent
    body: str
    receipt: str


class Parking:
    """The dead-letter queues `PREFIX-STAGE-parked`. `sqs` is a boto3 client.

    A poll waits `wait_seconds`, since a short one (0) asks only some of SQS's servers. Every method raises
    Unavailable while SQS does not answer, FailedPrecondition if a queue is missing.
    """

    def __init__(self, sqs: Any, prefix: str, wait_seconds: int = 1) -> None:
        self._sqs = sqs
        self._prefix = prefix
        self._wait_seconds = wait_seconds

    def parked(self, customer: str = "", product_id: str = "") -> list[ParkedEvent]:
        """All parked events, or one customer's, or one product's; oldest first. They stay parked."""
        found = []
        for stage in WITH_QUEUES:
            queue = self._url(f"{stage}-parked")
            messages = list(self._receive(stage, queue))
            self._release(queue, messages)
            found += [message.event for message in messages]
        return sorted(filter(_selects(customer, product_id), found), key=lambda event: event.since)

    def replay(self, customer: str = "", product_id: str = "") -> list[ParkedEvent]:
        """Send them to their queues again; returns those that were sent.

        At least once: an event whose removal from the parking fails is sent, and stays.
        """
        selects = _selects(customer, product_id)
        sent = []
        for stage in WITH_QUEUES:
            parking, queue = self._url(f"{stage}-parked"), self._url(stage)
            messages = list(self._receive(stage, parking))
            left = [message for message in messages if not selects(message.event)]
            self._release(parking, left)
            for message in messages:
                if selects(message.event):
                    with aws_answers(f"queue {queue}"):
                        self._sqs.send_message(QueueUrl=queue, MessageBody=message.body)
                        self._sqs.delete_message(QueueUrl=parking, ReceiptHandle=message.receipt)
                    sent.append(message.event)
        return sent

    def _url(self, name: str) -> str:
        with aws_answers(f"queue {self._prefix}-{name}"):
            return str(self._sqs.get_queue_url(QueueName=f"{self._prefix}-{name}")["QueueUrl"])

    def _receive(self, stage: str, queue: str) -> Iterator[_Message]:
        """Every message that nobody else holds, hidden from then on."""
        while True:
            with aws_answers(f"queue {queue}"):
                received = self._sqs.receive_message(
                    QueueUrl=queue,
                    MaxNumberOfMessages=_BATCH,
                    VisibilityTimeout=_HELD_SECONDS,
                    WaitTimeSeconds=self._wait_seconds,
                    MessageSystemAttributeNames=["SentTimestamp"],
                    MessageAttributeNames=["All"],
                ).get("Messages", [])
            if not received:
                return
            yield from (
                _Message(_event(stage, message), message["Body"], message["ReceiptHandle"])
                for message in received
            )

    def _release(self, queue: str, messages: list[_Message]) -> None:
        for start in range(0, len(messages), _BATCH):
            entries = [
                {"Id": str(place), "ReceiptHandle": message.receipt, "VisibilityTimeout": 0}
                for place, message in enumerate(messages[start : start + _BATCH])
            ]
            with aws_answers(f"queue {queue}"):
                self._sqs.change_message_visibility_batch(QueueUrl=queue, Entries=entries)


def _selects(customer: str, product_id: str) -> Callable[[ParkedEvent], bool]:
    return lambda event: customer in ("", event.customer) and product_id in ("", event.product_id)


def _event(stage: str, message: dict[str, Any]) -> ParkedEvent:
    attributes = {
        name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()
    }
    image = _sampled(message["Body"]) if stage == "probe" else _image(message["Body"])
    return ParkedEvent(
        stage=stage,
        reason=attributes.get("reason", REDRIVEN),
        code=attributes.get("code", ""),
        attempts=int(attributes.get("attempts", 0)),
        customer=image.customer,
        product_id=image.product_id,
        sha256=image.sha256,
        since=int(message["Attributes"]["SentTimestamp"]) / 1000,
    )


def _sampled(body: str) -> IngestedImage:
    """A sampled search is of a customer and of no image."""
    try:
        return IngestedImage(customer=search_of(body).customer)
    except InvalidArgument:
        return IngestedImage()


def _image(body: str) -> IngestedImage:
    """Of the event in a message; empty if it cannot be read, which may be why it is here."""
    try:
        event = json.loads(body)
        if "detail-type" in event:
            return image_uploaded(event).image
        return json_format.ParseDict(event["image"], IngestedImage(), ignore_unknown_fields=True)
    except (ValueError, KeyError, TypeError, InvalidArgument, json_format.ParseError):
        return IngestedImage()
