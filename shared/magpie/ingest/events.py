"""What EventBridge says of a new object in the bucket, as the pipeline's first event."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from magpie.errors import InvalidArgument
from magpie.store.upload_key import UploadKey
from magpie.v1.events_pb2 import ImageUploaded, IngestedImage


def image_uploaded(envelope: Mapping[str, Any]) -> ImageUploaded:
    """An S3 `Object Created` envelope (docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html).

    S3 and EventBridge deliver at least once, so the event id is made of what is one upload's own, not of the
    envelope's id. Raises InvalidArgument unless a product's picture was created.
    """
    if envelope.get("source") != "aws.s3" or envelope.get("detail-type") != "Object Created":
        raise InvalidArgument("event", "is no `Object Created` of S3: look at the EventBridge rule's pattern")
    try:
        detail = envelope["detail"]
        key = detail["object"]["key"]
        upload = [detail["object"].get(name, "") for name in ("sequencer", "version-id", "etag")]
        upload.append(detail.get("request-id", ""))
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument("event.detail", f"does not name its object: {error!r}") from error
    if not isinstance(key, str):
        raise InvalidArgument("event.detail.object.key", f"must be a text, got {key!r}")
    image = UploadKey.parse(key)
    if not image.product_id:
        raise InvalidArgument(
            "event.detail.object.key",
            f"{key} is a query photo: the rule must pass pictures of products alone",
        )
    return ImageUploaded(
        image=IngestedImage(
            event_id=hashlib.sha256("\0".join([key, *map(str, upload)]).encode()).hexdigest()[:32],
            customer=image.customer,
            product_id=image.product_id,
            sha256=image.sha256,
            upload_key=key,
            trace_id=str(envelope.get("id", "")),
        )
    )
