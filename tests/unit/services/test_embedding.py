"""The servicer with a real (tiny) embedder, real photos and a real store."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magpie.errors import InvalidArgument, NotFound, Unauthenticated
from magpie.geometry import WHOLE_IMAGE, Box
from magpie.rpc.context import CallContext
from magpie.services.embedding import EmbeddingServicer
from magpie.v1 import embedding_pb2, events_pb2, image_pb2
from magpie.vision.box_policy import QueryPolicy
from magpie.vision.crop_store import MemoryCropStore
from magpie.vision.decode import decode
from magpie.vision.embedder import Embedder
from magpie.vision.preprocess import crops
from tests.unit.vision import tiny_models


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PHOTO = png(np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8))
SHA = hashlib.sha256(PHOTO).hexdigest()
BOXES = [Box(0.0, 0.0, 0.5, 0.5), Box(0.25, 0.5, 1.0, 1.0)]
OBJECTS = [
    image_pb2.DetectedObject(box=image_pb2.Box(**box._asdict()), label="product", score=0.9) for box in BOXES
]


class Uploaded(dict[tuple[str, str], bytes]):
    """The uploads' port over a dictionary (customer, key) -> bytes."""

    def read_for(self, customer: str, upload_key: str) -> bytes:
        if (customer, upload_key) not in self:
            raise NotFound(f"no upload {upload_key}")
        return self[customer, upload_key]


def call(customer: str = "shop") -> CallContext:
    return CallContext(customer=customer, trace_id="t", deadline=None, metadata={})


@pytest.fixture
def store() -> MemoryCropStore:
    return MemoryCropStore()


@pytest.fixture
def embedder(tmp_path: Path) -> Embedder:
    return Embedder(tiny_models.embedder(tmp_path), tmp_path, threads=1)


@pytest.fixture
def servicer(embedder: Embedder, store: MemoryCropStore) -> EmbeddingServicer:
    return EmbeddingServicer(embedder, store, Uploaded({("shop", "key"): PHOTO}), "tiny@1")


def vectors_of(objects) -> dict[str, np.ndarray]:
    """space -> (N, d)"""
    rows: dict[str, list[np.ndarray]] = {}
    for embedded in objects:
        for vector in embedded.vectors:
            rows.setdefault(vector.space, []).append(np.frombuffer(vector.values, "<f4"))
    return {space: np.array(values) for space, values in rows.items()}


def expected(embedder: Embedder, boxes: list[Box]) -> dict[str, np.ndarray]:
    return embedder.embed(crops(decode(PHOTO).pixels, boxes, tiny_models.INPUT))


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for space, values in wanted.items():
        np.testing.assert_allclose(found[space], values, atol=1e-6)


@pytest.mark.parametrize("image", [image_pb2.Image(content=PHOTO), image_pb2.Image(upload_key="key")])
def test_every_object_in_every_space(servicer, embedder: Embedder, image: image_pb2.Image) -> None:
    response = servicer.Embed(embedding_pb2.EmbedRequest(image=image, objects=OBJECTS), call())
    assert response.bundle == "tiny@1"
    assert [embedded.object for embedded in response.objects] == OBJECTS
    found = vectors_of(response.objects)
    assert {space: values.shape for space, values in found.items()} == {
        "identity": (2, 8),
        "category": (2, 4),
    }
    assert_same(found, expected(embedder, BOXES))


def test_a_hash_alone_takes_the_crops_that_detection_kept(servicer, embedder, store) -> None:
    squares = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)  # not the photo's own
    store.put("shop", SHA, BOXES, squares)
    request = embedding_pb2.EmbedRequest(image=image_pb2.Image(sha256=SHA), objects=OBJECTS)
    assert_same(vectors_of(servicer.Embed(request, call()).objects), embedder.embed(squares))
    assert store.get("shop", SHA, BOXES) is not None  # a retry finds them still


def test_crops_that_are_gone_are_cut_again_from_the_source(servicer, embedder, store) -> None:
    store.put("shop", SHA, BOXES[:1], np.zeros((1, 32, 32, 3), np.uint8))
    image = image_pb2.Image(content=PHOTO, sha256=SHA)
    response = servicer.Embed(embedding_pb2.EmbedRequest(image=image, objects=OBJECTS), call())
    assert_same(vectors_of(response.objects), expected(embedder, BOXES))


def test_crops_that_are_gone_without_a_source_are_not_found(servicer) -> None:
    request = embedding_pb2.EmbedRequest(image=image_pb2.Image(sha256=SHA), objects=OBJECTS)
    with pytest.raises(NotFound, match="send its content again"):
        servicer.Embed(request, call())


def test_another_customer_s_crops_are_not_found(servicer, store) -> None:
    store.put("shop", SHA, BOXES, np.zeros((2, 32, 32, 3), np.uint8))
    request = embedding_pb2.EmbedRequest(image=image_pb2.Image(sha256=SHA), objects=OBJECTS)
    with pytest.raises(NotFound):
        servicer.Embed(request, call("rival"))


def test_detected_boxes_are_mixed_with_the_whole_image_by_their_share(embedder, store) -> None:
    servicer = EmbeddingServicer(
        embedder, store, Uploaded(), "tiny@1", query_policy=QueryPolicy(whole_image_share=0.4)
    )
    asked = image_pb2.DetectedObject(box=OBJECTS[1].box, label="query", score=1)
    request = embedding_pb2.EmbedRequest(image=image_pb2.Image(content=PHOTO), objects=[OBJECTS[0], asked])
    found = vectors_of(servicer.Embed(request, call()).objects)
    for space, (box, region, whole) in expected(embedder, [*BOXES, WHOLE_IMAGE]).items():
        mixed = 0.6 * box + 0.4 * whole
        np.testing.assert_allclose(found[space][0], mixed / np.sqrt((mixed**2).sum()), atol=1e-6)
        np.testing.assert_allclose(found[space][1], region, atol=1e-6)


@pytest.mark.parametrize(
    ("image", "objects", "message"),
    [
        (image_pb2.Image(), OBJECTS, "image: needs `content`"),
        (image_pb2.Image(content=PHOTO), [], "objects: needs 1 to 30, got 0"),
        (image_pb2.Image(content=PHOTO), OBJECTS * 16, "objects: needs 1 to 30, got 32"),
        (image_pb2.Image(sha256=SHA.upper()), OBJECTS, "image.sha256: must be 64"),
        (image_pb2.Image(content=PHOTO, sha256="0" * 64), OBJECTS, "image.sha256: is 000"),
        (
            image_pb2.Image(content=PHOTO),
            [OBJECTS[0], image_pb2.DetectedObject(box=image_pb2.Box(x1=2, y1=1))],
            r"objects\[1\]\.box: values must be fractions",
        ),
    ],
)
def test_refuses_bad_requests(servicer, image, objects, message) -> None:
    with pytest.raises(InvalidArgument, match=message):
        servicer.Embed(embedding_pb2.EmbedRequest(image=image, objects=objects), call())


def test_needs_a_customer(servicer) -> None:
    request = embedding_pb2.EmbedRequest(image=image_pb2.Image(content=PHOTO), objects=OBJECTS)
    with pytest.raises(Unauthenticated):
        servicer.Embed(request, call(""))


def detected(**changes: str) -> events_pb2.ObjectsDetected:
    fields = {"event_id": "e", "customer": "shop", "product_id": "p", "sha256": SHA, "upload_key": "key"}
    return events_pb2.ObjectsDetected(
        image=events_pb2.IngestedImage(**{**fields, **changes}), objects=OBJECTS
    )


def test_a_catalogue_picture_by_its_crops_and_again_without_them(servicer, embedder, store) -> None:
    event = detected()
    store.put("shop", SHA, BOXES, crops(decode(PHOTO).pixels, BOXES, tiny_models.INPUT))
    first = servicer.EmbedDetected(event, call(""))
    assert store.get("shop", SHA, BOXES) is None  # nobody will ask for them again
    again = servicer.EmbedDetected(event, call("shop"))  # a redelivery
    assert first == again
    assert (first.image, first.bundle) == (event.image, "tiny@1")
    assert_same(vectors_of(first.objects), expected(embedder, BOXES))
    assert not first.HasField("fingerprint")  # an event of an earlier release


def test_the_fingerprint_goes_on_as_it_came(servicer) -> None:
    for came in (
        image_pb2.Fingerprint(perceptual_hash=2**64 - 1, colours=bytes(48)),
        image_pb2.Fingerprint(),
    ):
        event = detected()
        event.fingerprint.CopyFrom(came)
        embedded = servicer.EmbedDetected(event, call(""))
        assert embedded.HasField("fingerprint")
        assert embedded.fingerprint == came


@pytest.mark.parametrize(
    ("changes", "customer", "error", "message"),
    [
        ({"customer": ""}, "", InvalidArgument, "image.customer"),
        ({}, "rival", InvalidArgument, "the call's is rival"),
        ({"customer": "rival"}, "", NotFound, "key"),
        ({"upload_key": "gone"}, "", NotFound, "gone"),
    ],
)
def test_refuses_events_that_do_not_fit(servicer, changes, customer, error, message) -> None:
    with pytest.raises(error, match=message):
        servicer.EmbedDetected(detected(**changes), call(customer))
