"""The vectors that the index has of one product."""

from __future__ import annotations

from typing import Protocol

from magpie.index.archived_objects import ArchivedObjects, objects_in
from magpie.store.catalogue import Catalogue
from magpie.v1.image_pb2 import EmbeddedObject


class StoredVectors(Protocol):
    """The port to vectors by product."""

    def of_product(self, customer: str, bundle: str, product_id: str) -> list[EmbeddedObject]:
        """All objects of its pictures that are indexed under the bundle; empty if there are none.

        Picture by picture as the product lists them, each picture's objects in the order of detection. Every
        object has its box; label and score may be missing. Raises Unavailable while they cannot be read.
        """


class CatalogueVectors:
    """StoredVectors by the catalogue, and by the snapshots for what it let go of."""

    def __init__(self, catalogue: Catalogue, archived: ArchivedObjects | None = None) -> None:
        self._catalogue = catalogue
        self._archived = archived

    def of_product(self, customer: str, bundle: str, product_id: str) -> list[EmbeddedObject]:
        """As the port says."""
        stored = self._catalogue.stored_objects(customer, bundle, product_id)
        return [
            embedded
            for sha256, value in stored.items()
            for embedded in objects_in(value, self._archived, customer, bundle, product_id, sha256)
        ]
