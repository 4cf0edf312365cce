"""Writes a customer's next snapshot: the newest one, and all changes since.

1. read the newest snapshot and the changes since;
2. let go, in the catalogue, of what the snapshot before that one took over, and the next one will have, too;
3. write the next one to the local disk;
4. upload it, under a name that nothing points to;
5. swap the pointer, if it is still the one of step 1: this is the moment at which it happens;
6. tell the readers;
7. let go, in the catalogue, of what the snapshot *before* the new one took over, so that either of the two
   that are kept holds all that the catalogue no longer does: a damaged one can be done without;
8. remove the snapshots before those two.

Killed at any step, nothing is lost or doubled: before the swap there is a file that nobody reads, after it
the next run does what is left, and everything that is left is safe to do twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magpie.errors import Aborted, FailedPrecondition
from magpie.index.code_planes import Planes
from magpie.index.hash_model import HashModel
from magpie.index.layered_table import BaseView, LayeredTable
from magpie.index.live_index import LiveIndex
from magpie.index.object_table import View as FreshView
from magpie.index.snapshot import Merged
from magpie.index.snapshot_writer import Block, encoded, write_snapshot
from magpie.index.text_dictionary import text_hash
from magpie.store.catalogue import Catalogue
from magpie.store.snapshots import Snapshots
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import Candidate

_PRODUCTS_AT_ONCE = 4096  # bounds the memory of their records


@dataclass(frozen=True)
class Compacted:
    """What a run did."""

    generation: int  # of the snapshot now in use
    products: int
    objects: int
    merged: int  # images whose objects were in the catalogue alone
    archived: int  # images that the catalogue let go of
    seconds: float


def compact(
    catalogue: Catalogue,
    snapshots: Snapshots,
    model: HashModel,
    customer: str,
    bundle: str,
    *,
    step: Callable[[str], None] = lambda _name: None,
) -> Compacted | None:
    """Compact one customer's index of one bundle. None: nothing has changed, or there is nothing yet.

    `step` is called before each step with its name. Raises Aborted if another compaction was faster,
    Unavailable while Redis or S3 does not answer.
    """
    began = time.monotonic()
    pointer = snapshots.pointer(customer, bundle)
    step("read")
    index = LiveIndex(catalogue, snapshots, customer, bundle)
    if pointer.generation:
        catalogue.announce_snapshot(customer, bundle, pointer.generation)
    table, cursor = index.caught_up()
    old = table.snapshot
    generation = old.generation if old else 0
    if generation > pointer.generation:
        raise Aborted(f"another compaction of {customer} was faster")
    if table.lacks or (pointer.generation and old is None):
        raise FailedPrecondition(f"the snapshots of {customer} under {bundle} cannot be read: see the log")
    damaged = generation < pointer.generation
    if damaged:  # go on from the one before, which is kept until the next compaction
        pointer = replace(pointer, file=pointer.previous)
    following = pointer.generation + 1
    step("archive")
    # An image that has gone since may come again with equal bytes: those will not be in the new snapshot.
    merged_before = [
        image for image in (old.merged if old else []) if table.keeps(image.product_id, image.image_sha256)
    ]
    left = [image for image in merged_before if image.generation < generation]
    archived = _archive(catalogue, customer, bundle, left)
    if not damaged and (cursor == old.cursor if old else not table.view().dimensions):
        return None
    contents = _Contents(table, model)
    kept = [image for image in merged_before if image.generation == generation]
    merged = [Merged(*image, digest, following) for image, digest in table.fresh.digests.items()]
    path = snapshots.new_path(customer, bundle, following)
    try:
        step("write")
        write_snapshot(
            path,
            contents.model,
            contents.dimensions,
            contents.blocks(),
            generation=following,
            cursor=cursor,
            merged=[*kept, *merged],
        )
        step("upload")
        snapshots.upload(customer, bundle, path)
        step("swap")
        new = snapshots.swap(customer, bundle, path, pointer)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    step("announce")
    catalogue.announce_snapshot(customer, bundle, new.generation)
    step("archive more")
    archived += _archive(catalogue, customer, bundle, kept)
    step("sweep")
    snapshots.sweep(customer, bundle, new)
    return Compacted(
        new.generation, contents.products, contents.objects, len(merged), archived, time.monotonic() - began
    )


def _archive(catalogue: Catalogue, customer: str, bundle: str, images: Sequence[Merged]) -> int:
    archived = 0
    for generation in {image.generation for image in images}:
        digests = {
            (image.product_id, image.image_sha256): image.digest
            for image in images
            if image.generation == generation
        }
        archived += catalogue.archive(customer, bundle, generation, digests)
    return archived


class _Contents:
    """The products that have objects, and these, from both layers of a table."""

    def __init__(self, table: LayeredTable, model: HashModel) -> None:
        """Raises FailedPrecondition if `model` has no coder for a space."""
        view = table.view()
        self._fresh = table.fresh
        self._base = view.base
        self._old = None if view.base is None else view.base.snapshot
        self.dimensions = view.dimensions or (table.snapshot.dimensions if table.snapshot else {})
        self.model = self._old.hash_model if self._old else model
        for space, dimension in self.dimensions.items():
            coder = self.model.coders.get(space)
            if coder is None or coder.card.dimension != dimension:
                raise FailedPrecondition(f"the bundle's hash model has no coder for {space} of {dimension}")
        self.products = self.objects = 0  # that were given out
        rows = {id_: self._row(id_) for id_ in self._fresh.product_ids() if self._fresh.images(id_)}
        self._added = [id_ for id_, row in rows.items() if row is None]
        self._touched = np.empty(0, np.bool_)  # (P,) products of the snapshot that are not as they were
        self._kept = np.empty(0, np.intp)  # those of them that have objects
        if self._base is not None:
            self._touched = _touched(self._base)
            has_objects = np.zeros(self._base.snapshot.products, np.bool_)
            has_objects[self._base.living_owners] = True
            has_objects[[row for row in rows.values() if row is not None]] = True
            self._kept = np.flatnonzero(has_objects & ~self._base.gone)
        self._records, self._planes = self._encoded(view.fresh)

    def blocks(self) -> Iterator[Block]:
        """In the order of the ids' hashes."""
        hashes = np.array([text_hash(id_) for id_ in self._added], np.uint64)
        if self._old is not None:
            hashes = np.concatenate([self._old.id_hashes[self._kept], hashes])
        order = np.argsort(hashes, kind="stable")
        for start in range(0, len(order), _PRODUCTS_AT_ONCE):
            yield self._block(order[start : start + _PRODUCTS_AT_ONCE].tolist())

    def _block(self, places: Sequence[int]) -> Block:
        """`places` among the kept products and then the added ones."""
        taken = _Taken()
        for place in places:
            if place >= len(self._kept):
                self._take_changed(taken, self._added[place - len(self._kept)], None)
                continue
            assert self._old is not None
            row = int(self._kept[place])
            content = self._old.product_bytes(row)
            if self._touched[row]:
                self._take_changed(taken, Product.FromString(content).id, row)
            else:
                taken.take(content, self._old.objects_of(row))
        self.products += len(taken.counts)
        self.objects += len(taken.rows)
        return self._assembled(taken)

    def _take_changed(self, taken: _Taken, product_id: str, row: int | None) -> None:
        """A product with its objects of both layers. `row`: in the snapshot; None: it is not there."""
        before = None if row is None or self._old is None else self._old.product_bytes(row)
        now = self._fresh.product(product_id)
        content = before if now is None else now.SerializeToString(deterministic=True)
        assert content is not None
        numbers = {sha256: number for number, sha256 in enumerate(Product.FromString(content).images)}
        rows: list[int] = []
        images: list[int] = []
        if before is not None and self._base is not None and row is not None:
            listed = Product.FromString(before).images
            for object_row in self._base.snapshot.objects_of(row):
                sha256 = listed[int(self._base.snapshot.image_numbers[object_row])]
                if sha256 in numbers and (self._base.dead is None or not self._base.dead[object_row]):
                    rows.append(object_row)
                    images.append(numbers[sha256])
        for sha256, fresh_rows in self._fresh.images(product_id).items():
            if sha256 in numbers:
                rows += [-1 - fresh_row for fresh_row in fresh_rows]
                images += [numbers[sha256]] * len(fresh_rows)
        if rows:
            taken.take(content, rows, images)

    def _assembled(self, taken: _Taken) -> Block:
        rows = np.array(taken.rows, np.intp)
        records = np.empty(len(rows), self._records.dtype)
        planes = np.empty((len(self._planes), len(rows)), np.uint64)
        numbers = np.empty(len(rows), np.uint8)
        old = rows >= 0
        if self._old is not None and old.any():
            records[old] = self._old.file.array("records")[rows[old]]
            planes[:, old] = self._old.planes[:, rows[old]]
            numbers[old] = self._old.image_numbers[rows[old]]
        records[~old] = self._records[-1 - rows[~old]]
        planes[:, ~old] = self._planes[:, -1 - rows[~old]]
        numbers[taken.renumbered] = taken.numbers
        return Block(taken.products, taken.counts, records, planes, numbers)

    def _encoded(self, fresh: FreshView) -> tuple[NDArray[Any], Planes]:
        """Records and planes of all rows of the fresh layer."""
        boxes = [Candidate.FromString(content).box for content in fresh.objects[: len(fresh.owner)]]
        corners = np.array([(b.x0, b.y0, b.x1, b.y1) for b in boxes], np.float32).reshape(-1, 4)
        vectors = {
            space: fresh.spaces.get(space, np.empty((0, dimension), np.float32))
            for space, dimension in self.dimensions.items()
        }
        return encoded(self.model, vectors, corners)

    def _row(self, product_id: str) -> int | None:
        return None if self._old is None else self._old.product_row(product_id)


class _Taken:
    """Products of a block and the rows of their objects; below 0: -1 - row in the fresh layer."""

    def __init__(self) -> None:
        self.products: list[bytes] = []
        self.counts: list[int] = []
        self.rows: list[int] = []
        self.renumbered: list[int] = []  # places whose image number is not the snapshot's
        self.numbers: list[int] = []  # but this

    def take(self, content: bytes, rows: Sequence[int], numbers: Sequence[int] = ()) -> None:
        self.products.append(content)
        self.counts.append(len(rows))
        self.renumbered.extend(range(len(self.rows), len(self.rows) + len(numbers)))
        self.numbers.extend(numbers)
        self.rows.extend(rows)


def _touched(base: BaseView) -> NDArray[np.bool_]:
    """(P,): the product itself has changed, or one of its objects is gone."""
    touched = base.changed.copy()
    touched[base.snapshot.owners[base.dead_rows]] = True
    return touched
