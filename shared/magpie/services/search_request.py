"""What a search request may say."""

from __future__ import annotations

from collections.abc import Collection

from magpie.errors import InvalidArgument
from magpie.index.filter import parse
from magpie.ranking.config import check_weights
from magpie.services.detection import MAX_OBJECTS, box_of
from magpie.v1.image_pb2 import Image
from magpie.v1.visual_search_pb2 import SearchRequest

MAX_LIMIT = 100
MAX_PHOTO_BYTES = 4_000_000  # base64 of it still fits the 6 MB of a synchronous invocation
WAYS_IN = ("image", "product_id", "embedded", "page_token")


def check(request: SearchRequest, spaces: Collection[str]) -> None:
    """Raises InvalidArgument naming the first field that is wrong; `spaces` are the bundle's.

    The vectors of `embedded` are left to whoever reads them.
    """
    _check_way_in(request)
    if request.page_token:
        return
    _check_regions(request)
    if request.HasField("image"):
        _check_photo(request.image)
    if not 0 <= request.limit <= MAX_LIMIT:
        raise InvalidArgument("limit", f"must lie in [1, {MAX_LIMIT}], got {request.limit}")
    if not 0 <= request.max_objects <= MAX_OBJECTS:
        raise InvalidArgument("max_objects", f"must lie in [1, {MAX_OBJECTS}], got {request.max_objects}")
    if request.filter:
        parse(request.filter)  # here, so that the position in the message is the caller's
    if request.weights:
        check_weights(request.weights, spaces, "weights")


def _check_way_in(request: SearchRequest) -> None:
    there = {field.name for field, _ in request.ListFields()}
    ways = [way for way in WAYS_IN if way in there]
    if not ways:
        raise InvalidArgument(
            "image",
            "needs `content` (the file's bytes) or `upload_key`; or send, instead of a photo, `product_id`, "
            "`embedded` or `page_token`",
        )
    if len(ways) > 1:
        raise InvalidArgument(ways[1], f"does not go together with `{ways[0]}`: send one of them")
    if request.page_token and len(there) > 1:
        others = ", ".join(sorted(there - {"page_token"}))
        raise InvalidArgument("page_token", f"stands alone, the rest is remembered: leave out {others}")


def _check_regions(request: SearchRequest) -> None:
    for field in ("box", "boxes"):
        asked = request.HasField("box") if field == "box" else len(request.boxes) > 0
        if asked and not request.HasField("image"):
            raise InvalidArgument(field, "is a region of a photo: send the photo as `image`, or leave it out")
    if request.HasField("box"):
        if request.boxes:
            raise InvalidArgument("boxes", "does not go together with `box`: put that one into `boxes`, too")
        box_of(request.box, "box")
    if len(request.boxes) > MAX_OBJECTS:
        raise InvalidArgument("boxes", f"at most {MAX_OBJECTS}, got {len(request.boxes)}")
    for row, box in enumerate(request.boxes):
        box_of(box, f"boxes[{row}]")


def _check_photo(image: Image) -> None:
    if image.WhichOneof("source") is None:
        raise InvalidArgument("image", "needs `content` (the file's bytes) or `upload_key`")
    if len(image.content) > MAX_PHOTO_BYTES:
        raise InvalidArgument(
            "image.content",
            f"has {len(image.content)} bytes, at most {MAX_PHOTO_BYTES}: shrink the photo "
            "(1024 px do), or upload it with CatalogService.CreateUpload and send its upload_key",
        )
