"""Finds pictures that are in the bucket but never arrived in the index, and sends them on their way again.

That is how lost events come back: a local AWS that was killed forgets its queues. Images that no product
lists are not in the ledger and stay untouched.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from google.protobuf import json_format

from magpie.store.aws_connection import aws_answers
from magpie.store.catalogue import Catalogue
from magpie.store.upload_key import UploadKey
from magpie.store.uploads import Uploads
from magpie.v1.catalog_pb2 import ImageStatus
from magpie.v1.events_pb2 import ImageUploaded, IngestedImage

OLDER_THAN_SECONDS = 600.0
_AT_ONCE = 10  # as many connections as a boto3 client keeps


@dataclass(frozen=True)
class Swept:
    """What a sweep found."""

    sent: int  # in the bucket and sent again
    awaiting_upload: int  # not in the bucket: the shop has yet to send it
    withdrawn: int  # no longer listed by its product


def sweep(
    catalogue: Catalogue,
    uploads: Uploads,
    sqs: Any,
    queue_url: str,
    older_than_seconds: float = OLDER_THAN_SECONDS,
) -> Swept:
    """Send ImageUploaded to detection's queue for images that have made no step for so long.

    Each gets an event id of its own, since consumers have seen the first one. It counts as a step, so that a
    second sweep leaves it alone. Raises Unavailable; what was sent before stays sent.
    """

    def act(found: tuple[str, ImageStatus]) -> str:
        customer, status = found
        image = _image(customer, status)
        if not uploads.exists(image.upload_key):
            return "awaiting_upload"
        if not catalogue.set_state(image, ImageStatus.STATE_DETECTING, "sent again: its event was lost"):
            return "withdrawn"
        body = json_format.MessageToJson(ImageUploaded(image=image), indent=None)
        with aws_answers("detection's queue"):
            sqs.send_message(QueueUrl=queue_url, MessageBody=body)
        return "sent"

    outcomes: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for batch in _batches(catalogue.unfinished(older_than_seconds)):
            outcomes += pool.map(act, batch)
    return Swept(*(outcomes.count(name) for name in ("sent", "awaiting_upload", "withdrawn")))


def _image(customer: str, status: ImageStatus) -> IngestedImage:
    return IngestedImage(
        event_id=f"sweep-{uuid.uuid4().hex}",
        customer=customer,
        product_id=status.product_id,
        sha256=status.sha256,
        upload_key=str(UploadKey(customer, status.product_id, status.sha256)),
        trace_id=uuid.uuid4().hex,
    )


def _batches(found: Iterator[tuple[str, ImageStatus]]) -> Iterator[list[tuple[str, ImageStatus]]]:
    while batch := list(islice(found, 10 * _AT_ONCE)):
        yield batch
