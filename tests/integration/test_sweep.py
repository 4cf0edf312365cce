"""The sweep over a real ledger, bucket and queue; and the path of one real upload to its first event."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import pytest
import redis
import urllib3
from google.protobuf import json_format

from local import resources
from local.home import BUCKET
from magpie.ingest.events import image_uploaded
from magpie.ingest.sweep import Swept, sweep
from magpie.store.catalogue import Catalogue
from magpie.store.uploads import Uploads
from magpie.v1.catalog_pb2 import ImageStatus
from magpie.v1.events_pb2 import ImageUploaded, IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.product_pb2 import Product

BUNDLE = "default@1"
DATA = b"a picture"
SHA256 = hashlib.sha256(DATA).hexdigest()
STATES = (
    ImageStatus.STATE_AWAITING_UPLOAD,
    ImageStatus.STATE_DETECTING,
    ImageStatus.STATE_EMBEDDING,
    ImageStatus.STATE_INDEXING,
)


@pytest.fixture
def catalogue(redis_client: redis.Redis) -> Catalogue:
    return Catalogue(redis_client)


@pytest.fixture
def uploads(s3: Any, bucket: str) -> Uploads:
    return Uploads(s3, bucket)


@pytest.fixture
def queue(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName=f"test-{uuid.uuid4().hex}")["QueueUrl"])


def put(s3: Any, bucket: str, product_id: str, customer: str = "shop") -> None:
    s3.put_object(Bucket=bucket, Key=f"customers/{customer}/catalogue/{product_id}/{SHA256}", Body=DATA)


def image(product_id: str, customer: str = "shop") -> IngestedImage:
    return IngestedImage(event_id="first", customer=customer, product_id=product_id, sha256=SHA256)


def state(catalogue: Catalogue, product_id: str, customer: str = "shop") -> int:
    (status,) = catalogue.states(customer, [product_id])
    return status.state


def events(sqs: Any, queue: str) -> list[IngestedImage]:
    found: list[IngestedImage] = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
        found += [json_format.Parse(message["Body"], ImageUploaded()).image for message in messages]
    return found


def test_what_arrived_and_got_stuck_is_sent_again(
    catalogue: Catalogue, uploads: Uploads, s3: Any, bucket: str, sqs: Any, queue: str
) -> None:
    for stuck in STATES:
        product_id = f"p{stuck}"
        catalogue.upsert_products("shop", [Product(id=product_id, images=[SHA256])], BUNDLE)
        put(s3, bucket, product_id)
        catalogue.set_state(image(product_id), stuck)

    assert sweep(catalogue, uploads, sqs, queue, older_than_seconds=0) == Swept(4, 0, 0)

    sent = {event.product_id: event for event in events(sqs, queue)}
    assert sorted(sent) == ["p1", "p2", "p3", "p4"]
    for product_id, event in sent.items():
        assert (event.customer, event.sha256) == ("shop", SHA256)
        assert uploads.read_for("shop", event.upload_key) == DATA
        assert event.trace_id
        assert state(catalogue, product_id) == ImageStatus.STATE_DETECTING
    # Consumers that have acted on the first event must act on this one.
    assert len({event.event_id for event in sent.values()} | {"first"}) == 5


def test_what_is_finished_or_not_there_or_fresh_is_left_alone(
    catalogue: Catalogue, uploads: Uploads, s3: Any, bucket: str, sqs: Any, queue: str
) -> None:
    ids = ("indexed", "failed", "not-uploaded")
    catalogue.upsert_products("shop", [Product(id=id_, images=[SHA256]) for id_ in ids], BUNDLE)
    for product_id in ("indexed", "failed", "unlisted"):
        put(s3, bucket, product_id)
    vectors = [Vector(space="identity", values=bytes(16))]
    catalogue.write_objects(
        ObjectsEmbedded(image=image("indexed"), bundle=BUNDLE, objects=[EmbeddedObject(vectors=vectors)])
    )
    catalogue.set_state(image("failed"), ImageStatus.STATE_FAILED, "image: truncated")
    assert sweep(catalogue, uploads, sqs, queue, older_than_seconds=0) == Swept(0, 1, 0)
    assert state(catalogue, "not-uploaded") == ImageStatus.STATE_AWAITING_UPLOAD

    put(s3, bucket, "not-uploaded")  # it arrives, and its event is still on its way
    assert sweep(catalogue, uploads, sqs, queue, older_than_seconds=60) == Swept(0, 0, 0)
    assert events(sqs, queue) == []


def test_a_second_sweep_leaves_alone_what_the_first_sent(
    catalogue: Catalogue,
    uploads: Uploads,
    s3: Any,
    bucket: str,
    sqs: Any,
    queue: str,
    redis_client: redis.Redis,
) -> None:
    catalogue.upsert_products("shop", [Product(id="p", images=[SHA256])], BUNDLE)
    put(s3, bucket, "p")
    redis_client.zincrby("magpie:{shop}:unfinished", -120, f"p\0{SHA256}")  # two minutes ago
    assert sweep(catalogue, uploads, sqs, queue, older_than_seconds=60).sent == 1
    assert sweep(catalogue, uploads, sqs, queue, older_than_seconds=60) == Swept(0, 0, 0)
    assert len(events(sqs, queue)) == 1


def test_all_customers_are_swept_each_with_its_own_key(
    catalogue: Catalogue, uploads: Uploads, s3: Any, bucket: str, sqs: Any, queue: str
) -> None:
    for customer in ("ours", "theirs"):
        products = [Product(id=f"p{number}", images=[SHA256]) for number in range(100)]
        catalogue.upsert_products(customer, products, BUNDLE)
    for number in range(100):
        put(s3, bucket, f"p{number}", "ours")
    assert sweep(catalogue, uploads, sqs, queue, older_than_seconds=0) == Swept(100, 100, 0)
    sent = events(sqs, queue)
    assert {event.customer for event in sent} == {"ours"}
    assert len({event.product_id for event in sent}) == len(sent) == 100


def test_a_real_upload_becomes_the_first_event(local_aws: str, s3: Any, sqs: Any) -> None:
    queue = resources.ensure(local_aws).work["detection"]
    uploads = Uploads(s3, BUCKET)
    for product_id in ("a/b", ""):  # a query photo starts no ingest
        upload = uploads.create("shop", product_id, SHA256, "image/png", len(DATA))
        answer = urllib3.request("POST", upload.url, fields={**upload.fields, "file": ("f", DATA)})
        assert answer.status == 204

    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=5)["Messages"]

    (first,) = [image_uploaded(json.loads(message["Body"])).image for message in messages]
    assert (first.customer, first.product_id, first.sha256) == ("shop", "a/b", SHA256)
    assert uploads.read_for("shop", first.upload_key) == DATA
    sqs.purge_queue(QueueUrl=queue)
