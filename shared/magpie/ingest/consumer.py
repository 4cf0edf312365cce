"""A function behind its queue: every event through the servicer's own method, its answer to the next queue.

At least once, everywhere. What a step has already done is remembered by event id (Powertools idempotency on
Redis), together with its answer: a redelivered event is not worked on again, but its answer is forwarded
again, because the process may have died between the two. The next step tells doubles apart in the same way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent_function
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    BaseError as IdempotencyError,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError as InWorkElsewhere,
)
from aws_lambda_powertools.utilities.idempotency.persistence.base import BasePersistenceLayer
from google.protobuf import json_format
from google.protobuf.message import Message

from magpie.errors import InvalidArgument, MagpieError, Unavailable
from magpie.ingest.events import image_uploaded
from magpie.ingest.parking_queue import ParkingQueue
from magpie.rpc.context import TRACE_ID, CallContext
from magpie.rpc.registry import ServicerRegistry
from magpie.store.aws_connection import aws_answers
from magpie.v1.catalog_pb2 import ImageStatus
from magpie.v1.events_pb2 import ImageUploaded, IngestedImage, ObjectsDetected, ObjectsEmbedded

REMEMBERED_SECONDS = 15 * 60

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One step of the ingest pipeline."""

    method: str  # the servicer's
    event: type[Message]
    state: ImageStatus.State.ValueType  # of an image that waits for this step or is in it
    next_state: ImageStatus.State.ValueType | None  # once it is done; None: the servicer enters it itself


STEPS = {
    "detection": Step(
        "/magpie.v1.DetectionService/DetectUploaded",
        ImageUploaded,
        ImageStatus.STATE_DETECTING,
        ImageStatus.STATE_EMBEDDING,
    ),
    "embedding": Step(
        "/magpie.v1.EmbeddingService/EmbedDetected",
        ObjectsDetected,
        ImageStatus.STATE_EMBEDDING,
        ImageStatus.STATE_INDEXING,
    ),
    "search": Step(
        "/magpie.v1.SearchService/IndexEmbedded",
        ObjectsEmbedded,
        ImageStatus.STATE_INDEXING,
        None,
    ),
}


class Ledger(Protocol):
    """Where it is written how far each image is."""

    def set_state(self, image: IngestedImage, state: ImageStatus.State.ValueType, reason: str = "") -> bool:
        """Enter an image's state."""


@dataclass(frozen=True)
class Queues:
    """Where a step's answers go, and its events that keep failing. Empty: nowhere."""

    next_url: str
    parking_url: str
    max_receives: int


class EventConsumer:
    """Takes the batches of one queue. `sqs` is a boto3 client."""

    def __init__(
        self,
        step: Step,
        registry: ServicerRegistry,
        sqs: Any,
        queues: Queues,
        ledger: Ledger,
        done: BasePersistenceLayer,
    ) -> None:
        self._step = step
        self._registry = registry
        self._sqs = sqs
        self._next_url = queues.next_url
        self._parking = ParkingQueue(sqs, queues.parking_url, queues.max_receives)
        self._ledger = ledger
        self._done = done

    def handle(self, event: Mapping[str, Any], lambda_context: Any) -> dict[str, Any]:
        """A batch in, the items that are to be delivered again out (`ReportBatchItemFailures`)."""
        work = self._remembering(lambda_context)
        failed = [record["messageId"] for record in event["Records"] if not self._settled(record, work)]
        return {"batchItemFailures": [{"itemIdentifier": id_} for id_ in failed]}

    def _remembering(self, lambda_context: Any) -> Callable[..., str]:
        """The servicer's answer, as JSON; for an event that is done already, what it answered then."""
        config = IdempotencyConfig(expires_after_seconds=REMEMBERED_SECONDS)
        # So long is an event of a killed process held to be in work, before somebody else may take it.
        config.register_lambda_context(lambda_context)

        def work(*, key: Mapping[str, str], message: Message, context: CallContext) -> str:  # noqa: ARG001
            answer = self._registry.invoke(self._step.method, message, context)
            return json_format.MessageToJson(answer, indent=None)

        remembered: Callable[..., str] = idempotent_function(
            work, data_keyword_argument="key", persistence_store=self._done, config=config
        )

        def with_deadline(message: Message, image: IngestedImage) -> str:
            seconds = lambda_context.get_remaining_time_in_millis() / 1000
            context = CallContext.of_call([(TRACE_ID, image.trace_id)], seconds, image.customer)
            key = {"method": self._step.method, "event_id": image.event_id, "bundle": image.bundle}
            try:
                return remembered(key=key, message=message, context=context)
            except InWorkElsewhere:
                raise
            except IdempotencyError as error:
                raise Unavailable(f"Redis, asked for event {image.event_id}: {error}") from error

        return with_deadline

    def _settled(self, record: Mapping[str, Any], work: Callable[..., str]) -> bool:
        """Whether the queue may forget an item: it is done, or it is parked."""
        image = IngestedImage()
        try:
            message = self._read(record["body"])
            image = message.image  # type: ignore[attr-defined]  # every event has one
            answer = work(message, image)
            if self._step.next_state is not None:
                self._ledger.set_state(image, self._step.next_state)
            self._forward(answer)
        except InWorkElsewhere:
            # No failure: whoever works on it will be done, or is dead and held to be so in time.
            _log.info("event %s is in work elsewhere", image.event_id)
            return False
        except MagpieError as error:
            return self._failed(record, image, error)
        return True

    def _read(self, body: str) -> Message:
        """The event in a message: proto JSON, or S3's own envelope. Raises InvalidArgument."""
        try:
            parsed = json.loads(body)
            if "detail-type" in parsed:
                return image_uploaded(parsed)
            event = json_format.ParseDict(parsed, self._step.event())
        except (ValueError, TypeError, json_format.ParseError) as error:
            raise InvalidArgument("event", f"is no {self._step.event.DESCRIPTOR.name}: {error}") from error
        if not event.HasField("image"):
            raise InvalidArgument(
                "event.image", "is missing: without it nobody knows what the event is about"
            )
        return event

    def _forward(self, answer: str) -> None:
        if self._next_url:
            with aws_answers("the next queue"):
                self._sqs.send_message(QueueUrl=self._next_url, MessageBody=answer)

    def _failed(self, record: Mapping[str, Any], image: IngestedImage, error: MagpieError) -> bool:
        """Retry what may succeed later; park the rest, and what failed too often. False: deliver again."""
        attempts = int(record["attributes"]["ApproximateReceiveCount"])
        park = self._parking.is_for(error, attempts)
        _log.warning(
            "%s failed: attempt %d, %s, product %r, image %s: %s",
            self._step.method, attempts, "parked" if park else "to be tried again",
            image.product_id, image.sha256, error,
        )  # fmt: skip
        try:
            if park:
                self._parking.park(record["body"], error, attempts)
            if image.customer:
                state = ImageStatus.STATE_FAILED if park else self._step.state
                self._ledger.set_state(image, state, str(error))
        except MagpieError as worse:
            _log.warning("not parked or not entered, left to the queue: %s", worse)
            return False
        return park
