"""The servicer with a real (tiny) detector, real photos and a real store."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magpie.errors import InvalidArgument, NotFound, Unauthenticated, UndecodableImage
from magpie.geometry import WHOLE_IMAGE, Box
from magpie.rpc.context import CallContext
from magpie.services.detection import DetectionServicer
from magpie.v1 import detection_pb2, events_pb2, image_pb2
from magpie.vision.box_policy import QueryPolicy
from magpie.vision.crop_store import MemoryCropStore
from magpie.vision.decode import decode
from magpie.vision.detector import Detector
from magpie.vision.fingerprint import fingerprint
from magpie.vision.preprocess import crops
from tests.unit.vision import tiny_models

BOXES = np.array([[0.1, 0.3, 0.3, 0.5], [0.5, 0.3, 0.9, 0.7], [0.6, 0.55, 0.8, 0.6]])
SCORES = np.array([[0.6], [0.9], [0.8]])


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


PHOTO = jpeg(np.random.default_rng(0).integers(100, 156, (100, 200, 3), dtype=np.uint8))
BLACK = jpeg(np.zeros((50, 50, 3), np.uint8))  # the tiny detector's scores fall to 0 on it
HALVES = jpeg(np.repeat(np.array([0, 255], np.uint8), 40)[None, :, None].repeat(60, 0).repeat(3, 2))
SHA = hashlib.sha256(PHOTO).hexdigest()


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
def detector(tmp_path: Path) -> Detector:
    return Detector(tiny_models.detector(tmp_path, BOXES, SCORES), tmp_path, threads=1)


@pytest.fixture
def servicer(detector: Detector, store: MemoryCropStore) -> DetectionServicer:
    photos = Uploaded({("shop", "key"): PHOTO, ("shop", "black"): BLACK, ("shop", "halves"): HALVES})
    return DetectionServicer(detector, store, tiny_models.INPUT, photos)


def content(data: bytes) -> image_pb2.Image:
    return image_pb2.Image(content=data)


def boxes_of(objects) -> list[Box]:
    return [Box(o.box.x0, o.box.y0, o.box.x1, o.box.y1) for o in objects]


@pytest.mark.parametrize("image", [content(PHOTO), image_pb2.Image(upload_key="key")])
def test_detects_best_first_and_keeps_the_crops(
    servicer: DetectionServicer, store: MemoryCropStore, image: image_pb2.Image
) -> None:
    response = servicer.Detect(detection_pb2.DetectRequest(image=image), call())
    assert (response.width, response.height) == (200, 100)
    assert response.image == image_pb2.Image(sha256=SHA)
    assert [o.label for o in response.objects] == ["product"] * 3
    assert not any(o.whole_image for o in response.objects)
    boxes = boxes_of(response.objects)
    np.testing.assert_allclose(boxes[0], [0.5, 0.1, 0.9, 0.9], atol=1e-6)
    kept = store.get("shop", SHA, boxes)
    np.testing.assert_array_equal(kept, crops(decode(PHOTO).pixels, boxes, tiny_models.INPUT))
    assert store.get("rival", SHA, boxes) is None


def test_max_objects_keeps_the_best(servicer: DetectionServicer) -> None:
    request = detection_pb2.DetectRequest(image=content(PHOTO), max_objects=2)
    scores = [o.score for o in servicer.Detect(request, call()).objects]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)


def test_nothing_found_is_the_whole_image_and_says_so(
    servicer: DetectionServicer, store: MemoryCropStore
) -> None:
    response = servicer.Detect(detection_pb2.DetectRequest(image=content(BLACK)), call())
    (only,) = response.objects
    assert (only.label, only.score, only.whole_image) == ("image", 0, True)
    assert boxes_of([only]) == [WHOLE_IMAGE]
    assert store.get("shop", response.image.sha256, [WHOLE_IMAGE]) is not None


def test_a_given_box_is_the_one_object(servicer: DetectionServicer, store: MemoryCropStore) -> None:
    box = image_pb2.Box(x0=0.2, y0=0.1, x1=0.7, y1=0.6)
    request = detection_pb2.DetectRequest(image=content(BLACK), box=box)
    response = servicer.Detect(request, call())
    (only,) = response.objects
    assert (only.box, only.label, only.score, only.whole_image) == (box, "query", 1, False)
    assert store.get("shop", response.image.sha256, boxes_of([only])) is not None


def test_given_boxes_are_the_objects_in_their_order(
    servicer: DetectionServicer, store: MemoryCropStore
) -> None:
    some = [image_pb2.Box(x0=x, y0=0.1, x1=x + 0.3, y1=0.6) for x in (0.5, 0.1)]
    request = detection_pb2.DetectRequest(image=content(PHOTO), boxes=[*some, some[0]], max_objects=1)
    response = servicer.Detect(request, call())
    assert [o.box for o in response.objects] == [*some, some[0]]
    assert [(o.label, o.whole_image) for o in response.objects] == [("query", False)] * 3
    kept = store.get("shop", SHA, boxes_of(response.objects))
    np.testing.assert_array_equal(
        kept, crops(decode(PHOTO).pixels, boxes_of(response.objects), tiny_models.INPUT)
    )


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([image_pb2.Box(x1=1, y1=1)] * 31, "boxes: at most 30, got 31"),
        ([image_pb2.Box(x1=1, y1=1), image_pb2.Box(x0=0.5, x1=0.2, y1=1)], r"boxes\[1\]: needs x0 < x1"),
    ],
)
def test_boxes_that_are_none_are_named(
    servicer: DetectionServicer, boxes: list[image_pb2.Box], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        servicer.Detect(detection_pb2.DetectRequest(image=content(PHOTO), boxes=boxes), call())
    both = detection_pb2.DetectRequest(image=content(PHOTO), boxes=boxes, box=boxes[0])
    with pytest.raises(InvalidArgument, match="boxes: does not go together with `box`"):
        servicer.Detect(both, call())


def test_the_whole_image_s_crop_is_kept_where_boxes_will_be_mixed_with_it(
    detector: Detector, store: MemoryCropStore
) -> None:
    policy = QueryPolicy(whole_image_share=0.3)
    servicer = DetectionServicer(detector, store, tiny_models.INPUT, Uploaded(), query_policy=policy)
    response = servicer.Detect(detection_pb2.DetectRequest(image=content(PHOTO)), call())
    assert len(response.objects) == 3
    assert store.get("shop", SHA, [*boxes_of(response.objects), WHOLE_IMAGE]) is not None


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (detection_pb2.DetectRequest(), InvalidArgument, "image: needs `content`"),
        (detection_pb2.DetectRequest(image=image_pb2.Image(sha256=SHA)), InvalidArgument, "image: needs"),
        (detection_pb2.DetectRequest(image=content(b"text")), UndecodableImage, "no picture"),
        (detection_pb2.DetectRequest(image=content(PHOTO[:-900])), UndecodableImage, "truncated"),
        (detection_pb2.DetectRequest(image=image_pb2.Image(upload_key="none")), NotFound, "none"),
        (detection_pb2.DetectRequest(image=content(PHOTO), max_objects=31), InvalidArgument, "max_objects"),
        (detection_pb2.DetectRequest(image=content(PHOTO), max_objects=-1), InvalidArgument, "max_objects"),
        (
            detection_pb2.DetectRequest(image=content(PHOTO), box=image_pb2.Box(x0=0.5, y0=0, x1=0.4, y1=1)),
            InvalidArgument,
            "box: needs x0 < x1",
        ),
        (
            detection_pb2.DetectRequest(image=image_pb2.Image(content=PHOTO, sha256="0" * 64)),
            InvalidArgument,
            "image.sha256",
        ),
    ],
)
def test_refuses_bad_requests(servicer: DetectionServicer, request_, error, message) -> None:
    with pytest.raises(error, match=message):
        servicer.Detect(request_, call())


def test_needs_a_customer(servicer: DetectionServicer) -> None:
    with pytest.raises(Unauthenticated):
        servicer.Detect(detection_pb2.DetectRequest(image=content(PHOTO)), call(""))


def uploaded(**changes: str) -> events_pb2.ImageUploaded:
    fields = {"event_id": "e", "customer": "shop", "product_id": "p", "sha256": SHA, "upload_key": "key"}
    return events_pb2.ImageUploaded(image=events_pb2.IngestedImage(**{**fields, **changes}))


@pytest.mark.parametrize("customer", ["shop", ""])
def test_a_catalogue_picture_is_its_two_best_boxes_and_the_whole(
    servicer: DetectionServicer, store: MemoryCropStore, customer: str
) -> None:
    event = uploaded()
    detected = servicer.DetectUploaded(event, call(customer))
    assert detected.image == event.image
    assert [o.label for o in detected.objects] == ["product", "product", "image"]
    assert not any(o.whole_image for o in detected.objects)
    assert boxes_of(detected.objects)[2] == WHOLE_IMAGE
    assert store.get("shop", SHA, boxes_of(detected.objects)) is not None


def test_a_catalogue_picture_without_objects_is_the_whole(servicer: DetectionServicer) -> None:
    event = uploaded(upload_key="black", sha256=hashlib.sha256(BLACK).hexdigest())
    (only,) = servicer.DetectUploaded(event, call("")).objects
    assert (only.label, only.score, only.whole_image) == ("image", 0, True)


def test_a_catalogue_picture_has_a_fingerprint_an_empty_one_if_it_shows_nothing(servicer) -> None:
    event = uploaded(upload_key="halves", sha256=hashlib.sha256(HALVES).hexdigest())
    detected = servicer.DetectUploaded(event, call(""))
    assert detected.fingerprint == fingerprint(decode(HALVES).pixels)
    np.testing.assert_allclose(
        np.frombuffer(detected.fingerprint.colours, np.uint8).reshape(4, 4, 3)[:, :, 0],
        [[0, 0, 255, 255]] * 4,
        atol=2,
    )
    event = uploaded(upload_key="black", sha256=hashlib.sha256(BLACK).hexdigest())
    detected = servicer.DetectUploaded(event, call(""))
    assert detected.HasField("fingerprint")
    assert detected.fingerprint == image_pb2.Fingerprint()


@pytest.mark.parametrize(
    ("changes", "customer", "error", "message"),
    [
        ({"customer": ""}, "", InvalidArgument, "image.customer"),
        ({}, "rival", InvalidArgument, "image.customer: is shop, the call's is rival"),
        ({"customer": "rival"}, "", NotFound, "key"),
        ({"upload_key": "gone"}, "", NotFound, "gone"),
        ({"sha256": "0" * 64}, "", InvalidArgument, "image.sha256"),
    ],
)
def test_refuses_events_that_do_not_fit(servicer, changes, customer, error, message) -> None:
    with pytest.raises(error, match=message):
        servicer.DetectUploaded(uploaded(**changes), call(customer))
