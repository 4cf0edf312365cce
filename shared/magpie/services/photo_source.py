"""Where the bytes of a photo come from, for the two servicers that decode."""

from __future__ import annotations

from typing import Protocol

from magpie.errors import InvalidArgument
from magpie.rpc.context import CallContext
from magpie.v1.events_pb2 import IngestedImage
from magpie.v1.image_pb2 import Image
from magpie.vision.decode import Photo, decode


class PhotoSource(Protocol):
    """The port to the uploads."""

    def read_for(self, customer: str, upload_key: str) -> bytes:
        """The uploaded file. Raises NotFound if there is none, or if it is another customer's."""


def open_photo(image: Image, customer: str, source: PhotoSource) -> Photo:
    """Decode `image.content`, or what lies under `image.upload_key`.

    Raises InvalidArgument without either, or if the bytes are not those that `image.sha256` names;
    UndecodableImage; NotFound.
    """
    match image.WhichOneof("source"):
        case "content":
            data = image.content
        case "upload_key":
            data = source.read_for(customer, image.upload_key)
        case None:
            raise InvalidArgument("image", "needs `content` (the file's bytes) or `upload_key`")
    photo = decode(data)
    if image.sha256 and image.sha256 != photo.sha256:
        raise InvalidArgument(
            "image.sha256",
            f"is {image.sha256}, but the file's bytes have {photo.sha256}: send that very file",
        )
    return photo


def customer_of(image: IngestedImage, context: CallContext) -> str:
    """An event says whose image it is; a caller that names a customer must name the same."""
    if not image.customer:
        raise InvalidArgument("image.customer", "is missing from the event")
    if context.customer and context.customer != image.customer:
        raise InvalidArgument("image.customer", f"is {image.customer}, the call's is {context.customer}")
    return image.customer
