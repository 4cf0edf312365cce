"""The vectors that the index has of one product."""

from __future__ import annotations

from typing import Protocol

from magpie.errors import Unavailable
from magpie.index.archived_objects import ArchivedObjects
from magpie.store.catalogue import Catalogue, archived_in
from magpie.v1.events_pb2 import ObjectsEmbedded
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
        objects: list[EmbeddedObject] = []
        for sha256, value in self._catalogue.stored_objects(customer, bundle, product_id).items():
            generation = archived_in(value)
            if generation is None:
                objects.extend(ObjectsEmbedded.FromString(value).objects)
            elif self._archived:
                objects.extend(self._archived.of_image(customer, bundle, product_id, sha256, generation))
            else:
                raise Unavailable(
                    f"snapshot {generation} of {customer} cannot be read: there is no store of it"
                )
        return objects
