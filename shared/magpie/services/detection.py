"""DetectionService: the objects of a picture, their crops kept for EmbeddingService."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from magpie.errors import InvalidArgument
from magpie.geometry import WHOLE_IMAGE, Box
from magpie.rpc.context import CallContext
from magpie.services.photo_source import PhotoSource, customer_of, open_photo
from magpie.v1 import detection_pb2, detection_pb2_grpc, events_pb2, image_pb2
from magpie.vision.box_policy import CataloguePolicy, QueryPolicy
from magpie.vision.crop_store import CropStore
from magpie.vision.decode import Photo
from magpie.vision.detector import Detection
from magpie.vision.fingerprint import fingerprint
from magpie.vision.model_card import InputSpec
from magpie.vision.preprocess import Pixels, crops

MAX_OBJECTS = 30


class FindsObjects(Protocol):
    """What the servicer needs of a detector."""

    def detect(self, pixels: Pixels, max_objects: int = 0) -> list[Detection]:
        """Objects of (H, W, 3) uint8, best first; 0: the detector's own limit."""


class DetectionServicer(detection_pb2_grpc.DetectionServiceServicer):
    """`embedder_input` says how crops are cut, so that EmbeddingService need not see the photo again."""

    def __init__(
        self,
        detector: FindsObjects,
        crop_store: CropStore,
        embedder_input: InputSpec,
        photos: PhotoSource,
        *,
        catalogue_policy: CataloguePolicy = CataloguePolicy(),  # noqa: B008  # frozen
        query_policy: QueryPolicy = QueryPolicy(),  # noqa: B008
    ) -> None:
        self._detector = detector
        self._crop_store = crop_store
        self._embedder_input = embedder_input
        self._photos = photos
        self._catalogue_policy = catalogue_policy
        self._query_policy = query_policy

    def Detect(  # type: ignore[override]  # our context on every transport
        self, request: detection_pb2.DetectRequest, context: CallContext
    ) -> detection_pb2.DetectResponse:
        customer = context.require_customer()
        if not 0 <= request.max_objects <= MAX_OBJECTS:
            raise InvalidArgument("max_objects", f"must lie in [1, {MAX_OBJECTS}], got {request.max_objects}")
        asked = _asked(request)
        photo = open_photo(request.image, customer, self._photos)
        if asked:
            found = self._query_policy.asked(asked)
        else:
            detections = self._detector.detect(photo.pixels, request.max_objects)
            found = self._query_policy.objects(detections)
        boxes = [detection.box for detection in found]
        if any(self._query_policy.shares([detection.label for detection in found])):
            boxes.append(WHOLE_IMAGE)
        self._keep(customer, photo, boxes)
        return detection_pb2.DetectResponse(
            image=image_pb2.Image(sha256=photo.sha256),
            width=photo.width,
            height=photo.height,
            objects=_messages(found, nothing_found=not asked and not detections),
        )

    def DetectUploaded(  # type: ignore[override]  # our context on every transport
        self, request: events_pb2.ImageUploaded, context: CallContext
    ) -> events_pb2.ObjectsDetected:
        customer = customer_of(request.image, context)
        image = image_pb2.Image(upload_key=request.image.upload_key, sha256=request.image.sha256)
        photo = open_photo(image, customer, self._photos)
        detections = self._detector.detect(photo.pixels)
        found = self._catalogue_policy.objects(detections)
        self._keep(customer, photo, [detection.box for detection in found])
        return events_pb2.ObjectsDetected(
            image=request.image,
            objects=_messages(found, nothing_found=not detections),
            fingerprint=fingerprint(photo.pixels),
        )

    def _keep(self, customer: str, photo: Photo, boxes: list[Box]) -> None:
        squares = crops(photo.pixels, boxes, self._embedder_input)
        self._crop_store.put(customer, photo.sha256, boxes, squares)


def box_of(message: image_pb2.Box, field: str) -> Box:
    """A box from outside. Raises InvalidArgument naming `field`."""
    return Box.checked(message.x0, message.y0, message.x1, message.y1, field)


def _asked(request: detection_pb2.DetectRequest) -> list[Box]:
    """The boxes that the caller gave; none: detect. Raises InvalidArgument naming one that is no box."""
    if not request.HasField("box"):
        if len(request.boxes) > MAX_OBJECTS:
            raise InvalidArgument("boxes", f"at most {MAX_OBJECTS}, got {len(request.boxes)}")
        return [box_of(box, f"boxes[{row}]") for row, box in enumerate(request.boxes)]
    if request.boxes:
        raise InvalidArgument("boxes", "does not go together with `box`: put that one into `boxes`, too")
    return [box_of(request.box, "box")]


def _messages(found: Iterable[Detection], *, nothing_found: bool) -> list[image_pb2.DetectedObject]:
    return [
        image_pb2.DetectedObject(
            box=image_pb2.Box(**detection.box._asdict()),
            label=detection.label,
            score=detection.score,
            whole_image=nothing_found,
        )
        for detection in found
    ]
