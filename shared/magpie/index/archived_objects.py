"""Objects that the catalogue let go of, read back from the snapshots that have them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from magpie.errors import FailedPrecondition, Unavailable
from magpie.index.snapshot import Snapshot
from magpie.store.catalogue import archived_in
from magpie.store.snapshots import Snapshots
from magpie.v1.events_pb2 import ObjectsEmbedded
from magpie.v1.image_pb2 import Box, DetectedObject, EmbeddedObject, Vector

_KEPT = 8  # snapshots that stay open


class ArchivedObjects:
    """Thread-safe. The vectors are what the snapshot's int8 numbers stand for; label and score are not
    kept."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._open: OrderedDict[tuple[str, str], Snapshot] = OrderedDict()
        self._lock = threading.Lock()

    def of_image(
        self, customer: str, bundle: str, product_id: str, image_sha256: str, generation: int
    ) -> list[EmbeddedObject]:
        """An image's objects, of which the catalogue says `archived_in(value) == generation`.

        Empty if the image has gone meanwhile. Raises Unavailable while no snapshot from that generation on
        can be read.
        """
        snapshot = self._snapshot(customer, bundle, generation)
        row = snapshot.product_row(product_id)
        if row is None:
            return []
        records = snapshot.records(snapshot.image_objects(row, image_sha256))
        vectors = snapshot.vectors(records)
        return [
            EmbeddedObject(
                object=DetectedObject(box=Box(x0=x0, y0=y0, x1=x1, y1=y1)),
                vectors=[Vector(space=space, values=v[place].tobytes()) for space, v in vectors.items()],
            )
            for place, (x0, y0, x1, y1) in enumerate(records["box"].tolist())
        ]

    def _snapshot(self, customer: str, bundle: str, generation: int) -> Snapshot:
        with self._lock:
            snapshot = self._open.get((customer, bundle))
            if snapshot is None or snapshot.generation < generation:
                snapshot = self._snapshots.newest(customer, bundle)
                if snapshot is None or snapshot.generation < generation:
                    raise Unavailable(
                        f"snapshot {generation} of {customer} under {bundle} cannot be read now"
                    )
                self._open[customer, bundle] = snapshot
            self._open.move_to_end((customer, bundle))
            if len(self._open) > _KEPT:
                self._open.popitem(last=False)
            return snapshot


def objects_in(
    value: bytes, archived: ArchivedObjects | None, customer: str, bundle: str, product_id: str, sha256: str
) -> Sequence[EmbeddedObject]:
    """An image's objects, by the value that the catalogue has of it.

    Raises FailedPrecondition if the catalogue let go of them and there is no `archived`, Unavailable while no
    snapshot that has them can be read.
    """
    generation = archived_in(value)
    if generation is None:
        return ObjectsEmbedded.FromString(value).objects
    if archived is None:
        raise FailedPrecondition(
            f"objects of {customer}, such as those of product {product_id}, are in a snapshot of the compact "
            "engine, which this process has not got"
        )
    return archived.of_image(customer, bundle, product_id, sha256, generation)
