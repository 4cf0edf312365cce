"""One customer's objects of one bundle as arrays in memory, kept up with the catalogue's changes.

Rows are only appended; what a row or a product was is never overwritten. An object that goes, or moves to a
newer version of its product, is told by `owner`, which is copied before it is changed. So a View stays
consistent for as long as anybody holds it, and needs no lock. Rows that nobody owns any more are dropped by a
rebuild once there are more of them than of the others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from magpie.errors import FailedPrecondition
from magpie.index.columns import ProductColumns
from magpie.index.filter_terms import Filter
from magpie.index.vectors import dimensions
from magpie.v1.events_pb2 import ObjectsEmbedded
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import Candidate

_NOBODY = -1
_FEW_ROWS = 1024  # dead ones below this are not worth a rebuild


@dataclass(frozen=True)
class View:
    """The table at one moment. N rows, one an object."""

    spaces: dict[str, NDArray[np.float32]]  # space -> (N, dimension)
    owner: NDArray[np.int32]  # (N,) row of its product, _NOBODY: the object is gone
    columns: ProductColumns
    product_rows: int
    objects: list[bytes]  # at least N: Candidate, serialised, with all that does not depend on the query
    all_owned: bool

    def holds(self, condition: Filter) -> NDArray[np.bool_]:
        """For which products it holds, (product_rows + 1,); the last, _NOBODY, is False."""
        return np.append(condition.mask(self.columns.first(self.product_rows)), False)

    def rows(self, holds: NDArray[np.bool_] | None) -> NDArray[np.intp] | None:
        """Rows of the objects whose product the filter `holds` for; None, of both: all there are."""
        if holds is None:
            return None if self.all_owned else np.flatnonzero(self.owner != _NOBODY)
        return np.flatnonzero(holds[self.owner])


class ObjectTable:
    """Builds Views. Not thread-safe: whoever changes it holds a lock."""

    def __init__(self) -> None:
        self._columns = ProductColumns()
        self._product_row: dict[str, int] = {}  # of the version in force
        self._image_rows: dict[str, dict[str, range]] = {}  # product id -> sha256 -> rows
        self._digests: dict[
            tuple[str, str], str
        ] = {}  # (product id, sha256) -> SHA-1 of the catalogue's value
        self.rebuilds = 0  # rows have moved so many times
        self._spaces: dict[str, NDArray[np.float32]] = {}  # (capacity, dimension)
        self._owner: NDArray[np.int32] = np.empty(0, np.int32)  # (capacity,)
        self._owner_is_shared = False
        self._objects: list[bytes] = []
        self._owned = 0

    @property
    def nbytes(self) -> int:
        """Roughly the memory taken."""
        arrays = sum(space.nbytes for space in self._spaces.values()) + self._owner.nbytes
        return arrays + 1024 * (len(self._columns.products) + 64) + 256 * len(self._objects)

    def product_row(self, product_id: str) -> int | None:
        """Of the version in force; None: it is not here."""
        return self._product_row.get(product_id)

    def product(self, product_id: str) -> Product | None:
        """The version in force; None: it is not here."""
        row = self._product_row.get(product_id)
        return None if row is None else self._columns.products[row]

    def images(self, product_id: str) -> dict[str, range]:
        """SHA-256 of each of a product's pictures -> rows of its objects."""
        return self._image_rows.get(product_id, {})

    def product_ids(self) -> list[str]:
        """Of the products that are here."""
        return list(self._product_row)

    @property
    def digests(self) -> dict[tuple[str, str], str]:
        """(product id, sha256) -> SHA-1 of the catalogue's value, of every image with objects here."""
        return self._digests

    def apply(self, products: dict[str, bytes | None], objects: dict[tuple[str, str], bytes | None]) -> None:
        """Take over new values; None: gone. Raises FailedPrecondition if vectors do not fit the others."""
        self._write_products(products)
        for product_id, sha256 in objects:
            self._drop_image(product_id, sha256)
        if self._objects and not self._owned:
            self._rebuild()  # nothing is left: the next objects may have other dimensions
        self._append_objects({image: value for image, value in objects.items() if value is not None})
        surplus_products = len(self._columns.products) - 2 * len(self._product_row)  # dead beyond the living
        surplus_rows = len(self._objects) - 2 * self._owned
        if max(surplus_products, surplus_rows) > _FEW_ROWS:
            self._rebuild()

    def view(self) -> View:
        """The table as it is now."""
        self._owner_is_shared = True
        count = len(self._objects)
        return View(
            spaces={name: vectors[:count] for name, vectors in self._spaces.items()},
            owner=self._owner[:count],
            columns=self._columns,
            product_rows=len(self._columns.products),
            objects=self._objects,
            all_owned=self._owned == count,
        )

    def _write_products(self, products: dict[str, bytes | None]) -> None:
        for product_id in [id_ for id_, value in products.items() if value is None]:
            for sha256 in list(self._image_rows.get(product_id, ())):
                self._drop_image(product_id, sha256)
            self._product_row.pop(product_id, None)
        written = [Product.FromString(value) for value in products.values() if value is not None]
        first = len(self._columns.products)
        self._columns.append(written)
        for row, product in enumerate(written, first):
            self._product_row[product.id] = row
            for rows in self._image_rows.get(product.id, {}).values():
                self._own(rows, row)

    def _drop_image(self, product_id: str, sha256: str) -> None:
        images = self._image_rows.get(product_id, {})
        rows = images.pop(sha256, None)
        self._digests.pop((product_id, sha256), None)
        if rows is not None:
            self._own(rows, _NOBODY)
            self._owned -= len(rows)
            if not images:
                del self._image_rows[product_id]

    def _own(self, rows: range, product_row: int) -> None:
        if self._owner_is_shared:
            self._owner = self._owner.copy()
            self._owner_is_shared = False
        self._owner[rows.start : rows.stop] = product_row

    def _append_objects(self, objects: dict[tuple[str, str], bytes]) -> None:
        events = [
            (product_id, sha256, ObjectsEmbedded.FromString(value))
            for (product_id, sha256), value in objects.items()
            if product_id in self._product_row  # else it is gone since, and a later change says so
        ]
        if not events:
            return
        self._append_vectors([event for _, _, event in events])
        for product_id, sha256, event in events:
            rows = range(len(self._objects), len(self._objects) + len(event.objects))
            for embedded in event.objects:
                candidate = Candidate(product_id=product_id, image_sha256=sha256, box=embedded.object.box)
                self._objects.append(candidate.SerializeToString())
            self._image_rows.setdefault(product_id, {})[sha256] = rows
            self._digests[product_id, sha256] = _digest(objects[product_id, sha256])
            self._owner[rows.start : rows.stop] = self._product_row[product_id]  # beyond what any view has
            self._owned += len(rows)

    def _append_vectors(self, events: list[ObjectsEmbedded]) -> None:
        vectors = [
            {vector.space: vector.values for vector in embedded.vectors}
            for embedded in chain.from_iterable(event.objects for event in events)
        ]
        if not self._spaces:
            first = dimensions(events[0].objects[0].vectors)
            self._spaces = {space: np.empty((0, size), np.float32) for space, size in first.items()}
        start, stop = len(self._objects), len(self._objects) + len(vectors)
        if stop > len(self._owner):
            self._grow(max(stop, 2 * len(self._owner)))
        for space, matrix in self._spaces.items():
            values = b"".join(row.get(space, b"") for row in vectors)
            if len(values) != matrix[start:stop].nbytes:
                raise FailedPrecondition(f"objects in the index differ in their dimension in space {space}")
            matrix[start:stop] = np.frombuffer(values, "<f4").reshape(-1, matrix.shape[1])

    def _grow(self, capacity: int) -> None:
        count = len(self._objects)
        owner = np.empty(capacity, np.int32)
        owner[:count] = self._owner[:count]
        self._owner, self._owner_is_shared = owner, False
        for space, matrix in self._spaces.items():
            grown = np.empty((capacity, matrix.shape[1]), np.float32)
            grown[:count] = matrix[:count]
            self._spaces[space] = grown

    def _rebuild(self) -> None:
        """Copy what is alive into new arrays; old views keep the old ones."""
        self.rebuilds += 1
        live_products = list(self._product_row.items())
        products = self._columns.products
        self._columns, old_products = ProductColumns(), products
        self._columns.append([old_products[row] for _, row in live_products])
        self._product_row = {id_: row for row, (id_, _) in enumerate(live_products)}

        kept: list[int] = []
        owner: list[int] = []
        for product_id, images in self._image_rows.items():
            for sha256, rows in images.items():
                images[sha256] = range(len(kept), len(kept) + len(rows))
                kept.extend(rows)
                owner.extend([self._product_row[product_id]] * len(rows))
        self._spaces = {space: matrix[kept] for space, matrix in self._spaces.items()}
        self._owner, self._owner_is_shared = np.array(owner, np.int32), False
        self._objects = [self._objects[row] for row in kept]
        if not kept:
            self._spaces = {}


def _digest(value: bytes) -> str:
    """What Redis's scripts can compute, too: it tells two values apart, and guards nothing."""
    return hashlib.sha1(value, usedforsecurity=False).hexdigest()
