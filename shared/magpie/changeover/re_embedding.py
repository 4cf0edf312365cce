"""The background of a change-over: pictures that one index lacks are sent through the ingest for it.

They take the way of an upload, through detection's queue, so retries, parking and the rest come with it. Only
so many are on their way at once: a new upload never waits behind more than that. What is sent is named by the
image, the bundle and the image's last step, so that two senders, or one that died before it could note what
it sent, send the same event twice and it is worked on once.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format

from magpie.changeover.change_overs import ChangeOvers
from magpie.changeover.checkpoint import Checkpoint, Step, go_on
from magpie.changeover.record import ChangeOver, Due
from magpie.store.aws_connection import aws_answers
from magpie.store.upload_key import UploadKey
from magpie.v1.events_pb2 import ImageUploaded, IngestedImage

PAUSE_SECONDS = 1.0  # between two looks
_SPARE_SECONDS = 5.0  # before the end of an invocation
_BATCH = 10  # SQS's limit

_log = logging.getLogger(__name__)


class ReEmbedding:
    """Sends to `queue_url`, detection's. `sqs` is a boto3 client. Every method raises Unavailable."""

    def __init__(
        self, change_overs: ChangeOvers, sqs: Any, queue_url: str, reached: Checkpoint = go_on
    ) -> None:
        self._change_overs = change_overs
        self._sqs = sqs
        self._queue_url = queue_url
        self._reached = reached

    def run(self, seconds_left: Callable[[], float]) -> int:
        """Look again and again until nothing is under way or time is up. Returns how many were sent."""
        sent = 0
        while seconds_left() > _SPARE_SECONDS:
            under_way = list(filter(None, map(self._change_overs.find, self._change_overs.customers())))
            if not under_way:
                break
            sent += sum(self.step(change_over.customer) for change_over in under_way)
            time.sleep(PAUSE_SECONDS)
        return sent

    def step(self, customer: str) -> int:
        """One look at one customer. Returns how many images were sent."""
        change_over = self._change_overs.find(customer)
        if change_over is None or change_over.dropping:
            return 0
        if not change_over.listed:
            self._list(change_over)
        sent = self._send(change_over, change_over.serving)  # searches wait for these
        if not change_over.paused:
            sent += self._send(change_over, change_over.other)
        return sent

    def _list(self, change_over: ChangeOver) -> None:
        """Images that are written meanwhile are noted by their writers."""
        for images in self._change_overs.images(change_over.customer):
            self._change_overs.list_due(change_over.customer, images)
            self._reached(Step.PAGE_LISTED)
        self._change_overs.all_listed(change_over.customer)
        self._reached(Step.ALL_LISTED)

    def _send(self, change_over: ChangeOver, bundle: str) -> int:
        due = self._change_overs.take_due(change_over, bundle)
        sent = 0
        for start in range(0, len(due), _BATCH):
            batch = due[start : start + _BATCH]
            entries = [
                {"Id": str(place), "MessageBody": _event(change_over.customer, bundle, image)}
                for place, image in enumerate(batch)
            ]
            with aws_answers("detection's queue"):
                answer = self._sqs.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            self._reached(Step.SENT)
            taken = [batch[int(entry["Id"])] for entry in answer.get("Successful", [])]
            for refused in answer.get("Failed", []):
                _log.warning("not sent, to be sent again: %s", refused)
            if taken:
                self._change_overs.mark_sent(change_over.customer, bundle, taken)
                self._reached(Step.MARKED)
            sent += len(taken)
        return sent


def _event(customer: str, bundle: str, image: Due) -> str:
    name = "\0".join((customer, bundle, image.product_id, image.sha256, image.round))
    event = ImageUploaded(
        image=IngestedImage(
            event_id=hashlib.sha256(name.encode()).hexdigest()[:32],
            customer=customer,
            product_id=image.product_id,
            sha256=image.sha256,
            upload_key=str(UploadKey(customer, image.product_id, image.sha256)),
            trace_id=uuid.uuid4().hex,
            bundle=bundle,
        )
    )
    return json_format.MessageToJson(event, indent=None)
