"""When an index is compacted: when its snapshot lacks many changes, or one for long."""

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


@dataclass(frozen=True)
class Thresholds:
    """From where on a backlog is due."""

    changes: int
    seconds: float

    def reached(self, backlog: Backlog) -> bool:
        """Whether it is."""
        return backlog.changes >= self.changes or (backlog.changes > 0 and backlog.seconds >= self.seconds)


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
        pointer = self._pointer(customer, bundle)
        changes, seconds = self._catalogue.count_changes(customer, pointer.cursor, most)
        return Backlog(customer, bundle, pointer.generation, changes, seconds)

    def _pointer(self, customer: str, bundle: str) -> Pointer:
        generation = self._catalogue.generation(customer, bundle)
        known = self._pointers.get((customer, bundle), Pointer())
        if known.generation != generation:
            known = self._pointers[customer, bundle] = self._snapshots.pointer(customer, bundle)
        return known
