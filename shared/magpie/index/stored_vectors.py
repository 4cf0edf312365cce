"""The vectors that the index has of one product."""

from __future__ import annotations

from typing import Protocol

from magpie.store.catalogue import Catalogue
from magpie.v1.image_pb2 import EmbeddedObject


class StoredVectors(Protocol):
    """The port to vectors by product."""

    def of_product(self, customer: str, bundle: str, product_id: str) -> list[EmbeddedObject]:
        """All objects of its pictures that are indexed under the bundle; empty if there are none.

        Picture by picture as the product lists them, each picture's objects in the order of detection. Raises
        Unavailable while they cannot be read.
        """


class CatalogueVectors:
    """StoredVectors where the catalogue in Redis has them all."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def of_product(self, customer: str, bundle: str, product_id: str) -> list[EmbeddedObject]:
        """As the port says."""
        images = self._catalogue.embedded_images(customer, bundle, product_id)
        return [embedded for image in images for embedded in image.objects]
