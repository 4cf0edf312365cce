"""EmbeddingService: every object's vectors, all objects of a picture in one run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from magpie.errors import InvalidArgument, NotFound
from magpie.geometry import WHOLE_IMAGE, Box
from magpie.rpc.context import CallContext
from magpie.services.detection import MAX_OBJECTS, box_of
from magpie.services.photo_source import PhotoSource, customer_of, open_photo
from magpie.v1 import embedding_pb2, embedding_pb2_grpc, events_pb2, image_pb2
from magpie.vision.box_policy import QueryPolicy
from magpie.vision.crop_store import CropStore
from magpie.vision.embedder import unit
from magpie.vision.model_card import InputSpec
from magpie.vision.preprocess import Pixels, crops

_SHA256 = re.compile(r"[0-9a-f]{64}")


class EmbedsSquares(Protocol):
    """What the servicer needs of an embedder."""

    @property
    def input(self) -> InputSpec:
        """How its squares are cut."""

    def embed(self, squares: Pixels) -> dict[str, NDArray[np.float32]]:
        """(N, size, size, 3) uint8 -> space -> (N, dimension), unit norm."""


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Takes the crops that detection kept; where those are gone, cuts them again from the photo."""

    def __init__(
        self,
        embedder: EmbedsSquares,
        crop_store: CropStore,
        photos: PhotoSource,
        bundle: str,
        *,
        query_policy: QueryPolicy = QueryPolicy(),  # noqa: B008  # frozen
    ) -> None:
        self._embedder = embedder
        self._crop_store = crop_store
        self._photos = photos
        self._bundle = bundle
        self._query_policy = query_policy

    def Embed(  # type: ignore[override]  # our context on every transport
        self, request: embedding_pb2.EmbedRequest, context: CallContext
    ) -> embedding_pb2.EmbedResponse:
        customer = context.require_customer()
        boxes = _boxes(request.objects)
        shares = self._query_policy.shares([object_.label for object_ in request.objects])
        mixed = any(shares)
        squares = self._squares(request.image, customer, [*boxes, WHOLE_IMAGE] if mixed else boxes)
        vectors = self._embedder.embed(squares)
        if mixed:
            vectors = {space: _mix(values[:-1], values[-1], shares) for space, values in vectors.items()}
        return embedding_pb2.EmbedResponse(objects=_messages(request.objects, vectors), bundle=self._bundle)

    def EmbedDetected(  # type: ignore[override]  # our context on every transport
        self, request: events_pb2.ObjectsDetected, context: CallContext
    ) -> events_pb2.ObjectsEmbedded:
        customer = customer_of(request.image, context)
        image = image_pb2.Image(upload_key=request.image.upload_key, sha256=request.image.sha256)
        squares = self._squares(image, customer, _boxes(request.objects))
        embedded = _messages(request.objects, self._embedder.embed(squares))
        # A long queue of catalogue pictures would fill the store otherwise; a redelivery decodes again.
        self._crop_store.discard(customer, image.sha256)
        return events_pb2.ObjectsEmbedded(
            image=request.image,
            objects=embedded,
            bundle=self._bundle,
            fingerprint=request.fingerprint if request.HasField("fingerprint") else None,
        )

    def _squares(self, image: image_pb2.Image, customer: str, boxes: Sequence[Box]) -> Pixels:
        """(N, size, size, 3). Raises NotFound if neither crops nor a source of the photo are left."""
        if image.sha256:
            if not _SHA256.fullmatch(image.sha256):
                raise InvalidArgument("image.sha256", "must be 64 lower-case hexadecimal digits")
            kept = self._crop_store.get(customer, image.sha256, boxes)
            if kept is not None:
                return kept
            if image.WhichOneof("source") is None:
                raise NotFound(f"crops of image {image.sha256} are gone: send its content again")
        photo = open_photo(image, customer, self._photos)
        return crops(photo.pixels, boxes, self._embedder.input)


def _boxes(objects: Sequence[image_pb2.DetectedObject]) -> list[Box]:
    if not 1 <= len(objects) <= MAX_OBJECTS:
        raise InvalidArgument("objects", f"needs 1 to {MAX_OBJECTS}, got {len(objects)}")
    return [box_of(object_.box, f"objects[{row}].box") for row, object_ in enumerate(objects)]


def _mix(
    vectors: NDArray[np.float32], whole: NDArray[np.float32], shares: Sequence[float]
) -> NDArray[np.float32]:
    """Vectors (N, d), each with its share of the whole image's (d,), unit norm again."""
    share = np.array(shares, np.float32)[:, None]
    return unit((1 - share) * vectors + share * whole)


def _messages(
    objects: Sequence[image_pb2.DetectedObject], vectors: Mapping[str, NDArray[np.float32]]
) -> list[image_pb2.EmbeddedObject]:
    little_endian = {space: values.astype("<f4") for space, values in vectors.items()}
    return [
        image_pb2.EmbeddedObject(
            object=object_,
            vectors=[
                image_pb2.Vector(space=space, values=values[row].tobytes())
                for space, values in little_endian.items()
            ],
        )
        for row, object_ in enumerate(objects)
    ]
