"""When an index is compacted: when its snapshot lacks many changes, or one for long.

And when readers were not told of the snapshot: who wrote it was killed, and left something to do.
"""

from __future__ import annotations

from dataclasses import dataclass

from magpie.store.catalogue import Catalogue
from magpie.store.snapshots import Pointer, Snapshots


@dataclass(frozen=True)
class Backlog:
    """What the newest snapshot of one customer's index of one bundle lacks."""

    customer: str
    bundle: str
    generation: int  # of the snapshot; 0: there is none
    changes: int  # the customer's, under whichever bundle
    seconds: float  # age of the first of them
    told: bool = True  # readers know of the snapshot


@dataclass(frozen=True)
class Thresholds:
    """From where on a backlog is due."""

    changes: int
    seconds: float

    def reached(self, backlog: Backlog) -> bool:
        """Whether it is."""
        aged = backlog.changes > 0 and backlog.seconds >= self.seconds
        return backlog.changes >= self.changes or aged or not backlog.told


class Backlogs:
    """Tells them; asks S3 only where Redis names a snapshot that it has not seen yet.

    Every method raises Unavailable while Redis or S3 does not answer.
    """

    def __init__(self, catalogue: Catalogue, snapshots: Snapshots) -> None:
        self._catalogue = catalogue
        self._snapshots = snapshots
        self._pointers: dict[tuple[str, str], Pointer] = {}  # of each customer and bundle

    def of(self, customer: str, bundle: str, most: int) -> Backlog:
        """Of one index. Counts `most` changes at most: it does not take Redis long."""
        announced = self._catalogue.generation(customer, bundle)
        pointer = self._pointers.get((customer, bundle), Pointer())
        if pointer.generation != announced:
            pointer = self._pointers[customer, bundle] = self._snapshots.pointer(customer, bundle)
        changes, seconds = self._catalogue.count_changes(customer, pointer.cursor, most)
        told = announced >= pointer.generation
        return Backlog(customer, bundle, pointer.generation, changes, seconds, told)
