"""A snapshot and what has changed since: one customer's objects of one bundle, as they are now.

Products that changed, and objects that are not in the snapshot, lie in an ObjectTable, the fresh layer. Of
the snapshot, which cannot change, this keeps what is no longer so: `override`, the fresh row of each of its
products that changed, and `dead`, its objects that are gone. Both are copied before they are changed while a
View has them, so a View stays consistent for as long as anybody holds it, and needs no lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from magpie.index.filter_terms import Filter
from magpie.index.object_table import ObjectTable
from magpie.index.object_table import View as FreshView
from magpie.index.snapshot import Snapshot
from magpie.store.catalogue import archived_in
from magpie.v1.product_pb2 import Product

_AS_IT_WAS = -2  # of a product of the snapshot that has not changed
_GONE = -1


@dataclass(frozen=True)
class BaseView:
    """What of the snapshot still holds."""

    snapshot: Snapshot
    override: (
        NDArray[np.int32] | None
    )  # (P,) row in the fresh products, _GONE, or _AS_IT_WAS; None: all as it was
    dead: NDArray[np.bool_] | None  # (N,) objects that are gone; None: none is

    @cached_property
    def dead_rows(self) -> NDArray[np.intp]:
        """Rows of the objects that are gone."""
        return np.empty(0, np.intp) if self.dead is None else np.flatnonzero(self.dead)

    @property
    def living_owners(self) -> NDArray[np.uint32]:
        """Of each object that is not gone, its product's row."""
        owners = self.snapshot.owners
        return owners if self.dead is None else np.asarray(owners[~self.dead])

    @property
    def changed(self) -> NDArray[np.bool_]:
        """(P,): the product is not as the snapshot has it."""
        if self.override is None:
            return np.zeros(self.snapshot.products, np.bool_)
        return np.asarray(self.override != _AS_IT_WAS)

    @property
    def gone(self) -> NDArray[np.bool_]:
        """(P,): the product is no more."""
        if self.override is None:
            return np.zeros(self.snapshot.products, np.bool_)
        return np.asarray(self.override == _GONE)

    def holds(self, condition: Filter, fresh: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For which products the condition holds, by their values of now. (P,)

        `fresh` is for which products of the fresh layer it does (`FreshView.holds`).
        """
        mask: NDArray[np.bool_] = condition.mask(self.snapshot.columns)
        if self.override is not None:
            changed, rows = self._overridden
            mask[changed] = fresh[rows]  # the last one, _GONE, is False
        return mask

    @cached_property
    def _overridden(self) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        assert self.override is not None
        changed = np.flatnonzero(self.changed)
        return changed, self.override[changed]

    def product(self, row: int, fresh: FreshView) -> Product | None:
        """A product as it is now, if it has changed."""
        if self.override is not None and self.override[row] >= 0:
            return fresh.columns.products[int(self.override[row])]
        return None


@dataclass(frozen=True)
class View:
    """The table at one moment."""

    base: BaseView | None
    fresh: FreshView

    @property
    def dimensions(self) -> dict[str, int]:
        """Space -> dimension; empty: there are no objects."""
        if self.base is not None:
            return self.base.snapshot.dimensions
        return {space: vectors.shape[1] for space, vectors in self.fresh.spaces.items()}


class LayeredTable:
    """Builds Views. Not thread-safe: whoever changes it holds a lock."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot = snapshot
        self.fresh = ObjectTable()
        self.lacks = (
            0  # generation of a snapshot that has objects which this one lacks; 0: nothing is missing
        )
        self._override: NDArray[np.int32] | None = None
        self._dead: NDArray[np.bool_] | None = None
        self._shared = False  # a View has these arrays
        self._rows: dict[str, int] = {}  # product id -> row in the snapshot, of those in the fresh layer
        self._rebuilds = 0
        self._seen: NDArray[np.bool_] | None = (
            None  # while a full load goes on: products that are still there
        )
        self._seen_objects: NDArray[np.bool_] | None = None

    @property
    def nbytes(self) -> int:
        """Roughly the memory taken."""
        snapshot = self.snapshot
        return self.fresh.nbytes + (snapshot.planes.nbytes + 16 * snapshot.products if snapshot else 0)

    def apply(
        self, products: Mapping[str, bytes | None], objects: Mapping[tuple[str, str], bytes | None]
    ) -> None:
        """Take over new values, as `Changes` has them. Raises FailedPrecondition if vectors do not fit."""
        changed = {id_: value for id_, value in products.items() if self._differs(id_, value)}
        fresh = {image: self._unless_archived(value) for image, value in objects.items()}
        if self.snapshot is not None:
            self._bury(self.snapshot, changed, objects)
            changed |= self._products_for(self.snapshot, fresh, changed)
        self.fresh.apply(changed, fresh)
        self._override_products(changed)

    def _differs(self, product_id: str, value: bytes | None) -> bool:
        """False, in a full load, of a product that is as the snapshot has it."""
        if self._seen is None or self.snapshot is None:
            return True
        row = self.snapshot.product_row(product_id)
        if row is not None:
            self._seen[row] = True
        return row is None or value != self.snapshot.product_bytes(row)

    def _unless_archived(self, value: bytes | None) -> bytes | None:
        generation = None if value is None else archived_in(value)
        if generation is None:
            return value
        if self.snapshot is None or generation > self.snapshot.generation:
            self.lacks = max(self.lacks, generation)
        return None

    def _bury(
        self,
        snapshot: Snapshot,
        products: Mapping[str, bytes | None],
        objects: Mapping[tuple[str, str], bytes | None],
    ) -> None:
        """Mark which of the snapshot's objects are gone, and which are there again."""
        for product_id, value in products.items():
            row = snapshot.product_row(product_id) if value is None else None
            if row is not None:
                of_product = snapshot.objects_of(row)
                self._writable_dead()[of_product.start : of_product.stop] = True
        for (product_id, sha256), value in objects.items():
            row = snapshot.product_row(product_id)
            of_image = np.empty(0, np.intp) if row is None else snapshot.image_objects(row, sha256)
            if not len(of_image):
                continue
            here = value is not None and archived_in(value) is not None
            if self._seen_objects is not None:
                self._seen_objects[of_image] = here
            else:
                self._writable_dead()[of_image] = not here

    def _products_for(
        self,
        snapshot: Snapshot,
        objects: Mapping[tuple[str, str], bytes | None],
        changed: Mapping[str, bytes | None],
    ) -> dict[str, bytes | None]:
        """Products that have not changed but that the fresh layer needs for its objects."""
        needed: dict[str, bytes | None] = {}
        for (product_id, _), value in objects.items():
            if value is None or product_id in changed or self.fresh.product_row(product_id) is not None:
                continue
            row = snapshot.product_row(product_id)
            if row is not None and (self._override is None or self._override[row] != _GONE):
                needed[product_id] = snapshot.product_bytes(row)
        return needed

    def _override_products(self, changed: Mapping[str, bytes | None]) -> None:
        if self.snapshot is None:
            return
        for product_id in changed:
            row = self.snapshot.product_row(product_id)
            if row is not None:
                self._rows[product_id] = row
        moved: Iterable[str] = changed
        if self.fresh.rebuilds != self._rebuilds:
            self._rebuilds, moved = self.fresh.rebuilds, self._rows
        for product_id in moved:
            if product_id in self._rows:
                now = self.fresh.product_row(product_id)
                self._writable_override()[self._rows[product_id]] = _GONE if now is None else now

    def _writable_dead(self) -> NDArray[np.bool_]:
        self._unshare()
        if self._dead is None:
            assert self.snapshot is not None
            self._dead = np.zeros(self.snapshot.objects, np.bool_)
        return self._dead

    def _writable_override(self) -> NDArray[np.int32]:
        self._unshare()
        if self._override is None:
            assert self.snapshot is not None
            self._override = np.full(self.snapshot.products, _AS_IT_WAS, np.int32)
        return self._override

    def _unshare(self) -> None:
        if self._shared:
            self._dead = None if self._dead is None else self._dead.copy()
            self._override = None if self._override is None else self._override.copy()
            self._shared = False

    def keeps(self, product_id: str, image_sha256: str) -> bool:
        """Whether the objects of an image are those that the snapshot has."""
        row = None if self.snapshot is None else self.snapshot.product_row(product_id)
        if (
            self.snapshot is None
            or row is None
            or (self._override is not None and self._override[row] == _GONE)
        ):
            return False
        of_image = self.snapshot.image_objects(row, image_sha256)
        return len(of_image) > 0 and (self._dead is None or not self._dead[of_image].any())

    def begin_full_load(self) -> None:
        """The next `apply`s bring everything that there is: what they do not bring is gone."""
        if self.snapshot is not None:
            self._seen = np.zeros(self.snapshot.products, np.bool_)
            self._seen_objects = np.zeros(self.snapshot.objects, np.bool_)

    def end_full_load(self) -> None:
        """Everything has come."""
        if self.snapshot is None or self._seen is None or self._seen_objects is None:
            return
        if not self._seen_objects.all():
            self._writable_dead()[:] = ~self._seen_objects
        if not self._seen.all():
            unseen = np.flatnonzero(~self._seen)
            self._writable_override()[unseen] = _GONE
        self._seen = self._seen_objects = None

    def view(self) -> View:
        """The table as it is now."""
        self._shared = True
        base = None if self.snapshot is None else BaseView(self.snapshot, self._override, self._dead)
        if base is not None and len(base.dead_rows) == base.snapshot.objects:
            base = None  # nothing is left of it: the next objects may have other dimensions
        return View(base, self.fresh.view())
