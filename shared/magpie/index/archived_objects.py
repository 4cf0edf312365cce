"""Objects that the catalogue has given up to the compact engine's snapshots, as they were written."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from magpie.index.snapshot import Snapshot
from magpie.store.snapshots import Snapshots
from magpie.v1.events_pb2 import IngestedImage, ObjectsEmbedded
from magpie.v1.image_pb2 import Box, DetectedObject, EmbeddedObject, Vector


class ArchivedObjects:
    """Reads from the newest snapshot. Vectors are what the int8 numbers stand for."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def objects(
        self, customer: str, bundle: str, images: Collection[tuple[str, str]]
    ) -> Iterator[ObjectsEmbedded]:
        """Of those of the images (product id, sha256) that the snapshot has. Raises Unavailable without S3."""
        snapshot = self._snapshots.newest(customer, bundle)
        if snapshot is None:
            return
        for product_id, sha256 in images:
            found = _objects_of(snapshot, product_id, sha256)
            if found:
                image = IngestedImage(customer=customer, product_id=product_id, sha256=sha256)
                yield ObjectsEmbedded(image=image, objects=found, bundle=bundle)


def _objects_of(snapshot: Snapshot, product_id: str, sha256: str) -> list[EmbeddedObject]:
    row = snapshot.product_row(product_id)
    if row is None:
        return []
    records = snapshot.records(snapshot.image_objects(row, sha256))
    vectors = snapshot.vectors(records)
    return [
        EmbeddedObject(
            object=DetectedObject(box=Box(x0=box[0], y0=box[1], x1=box[2], y1=box[3])),
            vectors=[
                Vector(space=space, values=of_space[number].astype("<f4").tobytes())
                for space, of_space in vectors.items()
            ],
        )
        for number, box in enumerate(records["box"].tolist())
    ]
