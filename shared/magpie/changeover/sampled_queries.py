"""Queries with known answers, made of a customer's own stored pictures.

A picture of a product that has several asks for its product without finding itself. A product with one
picture is asked for by a retake of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from magpie.changeover.change_overs import ChangeOvers
from magpie.changeover.gate import GateQuery
from magpie.errors import NotFound, UndecodableImage
from magpie.store.catalogue import Catalogue
from magpie.store.upload_key import UploadKey
from magpie.synthesis.retaken import retaken
from magpie.v1.image_pb2 import Image
from magpie.vision.decode import decode

ANOTHER_PICTURE = "another picture of the product"
RETAKEN = "its picture, taken again"
_AT_ONCE = 100  # products a read


class StoredPictures(Protocol):
    """The port to the uploads."""

    def read(self, key: str) -> bytes:
        """The file under a key. Raises NotFound."""


def sampled_queries(
    change_overs: ChangeOvers,
    catalogue: Catalogue,
    pictures: StoredPictures,
    customer: str,
    bundles: Sequence[str],
    count: int,
) -> list[GateQuery]:
    """About `count`, of pictures that the indexes of all `bundles` have. Raises Unavailable.

    A picture that is gone from the bucket asks nothing.
    """
    images = change_overs.sample(customer, bundles, count)
    return list(_queries(catalogue, pictures, customer, images))


def _queries(
    catalogue: Catalogue, pictures: StoredPictures, customer: str, images: Sequence[tuple[str, str]]
) -> Iterator[GateQuery]:
    for start in range(0, len(images), _AT_ONCE):
        page = images[start : start + _AT_ONCE]
        products = catalogue.products(customer, [product_id for product_id, _ in page])
        for product_id, sha256 in page:
            if product_id not in products:  # deleted meanwhile
                continue
            try:
                photo = decode(pictures.read(str(UploadKey(customer, product_id, sha256)))).pixels
            except (NotFound, UndecodableImage):
                continue
            several = len(set(products[product_id].images)) > 1
            yield GateQuery(
                kind=ANOTHER_PICTURE if several else RETAKEN,
                photo=Image(content=retaken(photo, int(sha256[:8], 16))),
                grades={product_id: 1.0},
                leave_out=sha256 if several else "",
            )
