"""The compact engine: binary codes first, then int8 vectors, exact under any filter.

The snapshot's objects are found in two passes: a scan of all codes by Hamming distance (`code_planes`) gives
a shortlist, whose int8 vectors tell the cosines. Objects of the fresh layer are few and are compared by their
float vectors. A filter is evaluated before the scan, so a search under a narrow one scans little.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magpie.index.code_planes import LARGEST, Rows, Words, factors_of, fused_distances, nearest
from magpie.index.engine import (
    IDENTITY,
    Found,
    Query,
    Shares,
    Weights,
    check_queries,
    refuse_other_bundles,
    ways_of,
)
from magpie.index.filter_terms import Filter
from magpie.index.layered_table import BaseView, View
from magpie.index.live_index import LiveIndex
from magpie.index.object_table import View as FreshView
from magpie.store.catalogue import Catalogue
from magpie.store.snapshots import Snapshots
from magpie.v1.image_pb2 import Box
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import Candidate

SHORTLIST = 400  # objects whose vectors are read, by default
_READ_AT_ONCE = 65536  # bounds the memory of their vectors where all are
_GATHER_BELOW = (
    0.25  # share of the objects under a filter below which copying their codes is cheaper than scanning all
)

Similarity = NDArray[np.float32]  # (rows,), cosine


class CompactEngine:
    """Engine over `catalogue` and `snapshots`; without these everything is in the fresh layer, and exact.

    Thread-safe. Keeps the indexes searched last, up to about `capacity_bytes`. Of `shortlist` objects a query
    has the vectors read, at least of four times the limit; None: of all, which is exact but for the rounding
    to int8, and slow: it is what the recall of the other is measured by.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        snapshots: Snapshots | None = None,
        capacity_bytes: int = 1 << 30,
        shortlist: int | None = SHORTLIST,
    ) -> None:
        self._catalogue = catalogue
        self._snapshots = snapshots
        self._capacity = capacity_bytes
        self._shortlist = shortlist
        self._indexes: OrderedDict[tuple[str, str], LiveIndex] = OrderedDict()
        self._lock = threading.Lock()

    def find(
        self,
        customer: str,
        bundle: str,
        queries: Sequence[Query],
        condition: Filter | None,
        limit: int,
        weights: Weights | None = None,
    ) -> Found:
        """As the port `Engine` says."""
        view, stale = self._index(customer, bundle).view()
        self._bound_memory()
        if not view.dimensions:
            if not stale:
                refuse_other_bundles(bundle, self._catalogue.bundles(customer))
            return Found([[] for _ in queries], [], stale)
        check_queries(queries, view.dimensions)
        shortlist = None if self._shortlist is None else max(self._shortlist, 4 * limit)
        search = _Search(view, condition, limit, ways_of(weights, view.dimensions), shortlist)
        return Found([search.candidates(query) for query in queries], search.products(), stale)

    def _index(self, customer: str, bundle: str) -> LiveIndex:
        with self._lock:
            index = self._indexes.get((customer, bundle))
            if index is None:
                index = LiveIndex(self._catalogue, self._snapshots, customer, bundle)
                self._indexes[customer, bundle] = index
            self._indexes.move_to_end((customer, bundle))
            return index

    def _bound_memory(self) -> None:
        """Forget the indexes that were searched longest ago; never the last one."""
        with self._lock:
            total = sum(index.nbytes for index in self._indexes.values())
            while total > self._capacity and len(self._indexes) > 1:
                _, forgotten = self._indexes.popitem(last=False)
                total -= forgotten.nbytes


@dataclass(frozen=True)
class _Pool:
    """Objects that are compared with a query: rows of one layer, and space -> their cosines."""

    rows: Rows
    similarities: dict[str, Similarity]


class _Search:
    """One search of one view: what its queries share."""

    def __init__(
        self,
        view: View,
        condition: Filter | None,
        limit: int,
        ways: Sequence[Shares],
        shortlist: int | None,
    ) -> None:
        self._limit = limit
        self._ways = ways
        of_fresh = of_base = None  # for which products the filter holds
        if condition is not None:
            of_fresh = view.fresh.holds(condition)
            of_base = None if view.base is None else view.base.holds(condition, of_fresh)
        self._base = None if view.base is None else _Base(view.base, view.fresh, of_base, ways, shortlist)
        self._fresh = _Fresh(view.fresh, of_fresh)
        self._named: dict[str, Product] = {}

    def candidates(self, query: Query) -> list[Candidate]:
        """Of one query: space -> (d,)."""
        fresh = self._fresh.pool(query)
        base = None if self._base is None else self._base.pool(query)
        cosines = fresh.similarities
        if base is not None:
            cosines = {
                space: np.concatenate([base.similarities[space], fresh.similarities[space]])
                if len(fresh.rows)
                else base.similarities[space]
                for space in query
            }
        chosen = self._chosen(cosines)
        values = [[float(v) for v in np.clip(cosines[space][chosen], -1, 1)] for space in query]
        of_base = 0 if base is None else len(base.rows)
        candidates = []
        if base is not None and self._base is not None:
            candidates += self._base.candidates(base.rows[chosen[chosen < of_base]], self._named)
        candidates += self._fresh.candidates(fresh.rows[chosen[chosen >= of_base] - of_base], self._named)
        for candidate, *of_candidate in zip(candidates, *values, strict=True):
            similarity = candidate.similarity  # set one by one: half the time of an update
            for space, value in zip(query, of_candidate, strict=True):
                similarity[space] = value
        return candidates

    def products(self) -> list[Product]:
        """Those that the candidates so far name."""
        return list(self._named.values())

    def _chosen(self, cosines: Mapping[str, Similarity]) -> Rows:
        """Ascending places of the candidates among all that were compared."""
        return _union(
            [
                _largest(np.asarray(sum(way[s] * cosine for s, cosine in cosines.items())), self._limit)
                for way in self._ways
            ]
        )


class _Base:
    """The snapshot's part of a search."""

    def __init__(
        self,
        base: BaseView,
        fresh: FreshView,
        holds: NDArray[np.bool_] | None,
        ways: Sequence[Shares],
        shortlist: int | None,
    ) -> None:
        """`holds` (P,): for which products the filter holds; None: there is no filter."""
        self._base = base
        self._fresh = fresh
        self._snapshot = base.snapshot
        self._factors = [factors_of(way, base.snapshot.bits) for way in ways]
        self._shortlist = shortlist
        self._rows: Rows | None = None  # those to scan; None: all
        self._left_out: Rows | NDArray[np.bool_] = base.dead_rows  # of what is scanned
        if holds is not None:
            self._filter(holds)
        self._planes = self._snapshot.planes
        if self._rows is not None:
            self._planes = np.take(self._planes, self._rows, axis=1)  # a third of the time of indexing

    def _filter(self, holds: NDArray[np.bool_]) -> None:
        if holds.all():
            return
        products = np.flatnonzero(holds)
        first = self._snapshot.first
        starts = first[products].astype(np.intp)
        counts = first[products + 1] - starts
        if counts.sum() < _GATHER_BELOW * self._snapshot.objects:
            ends = np.cumsum(counts)
            rows = np.arange(counts.sum()) + np.repeat(starts - ends + counts, counts)
            self._rows = rows if self._base.dead is None else rows[~self._base.dead[rows]]
            self._left_out = np.empty(0, np.intp)
        else:
            left_out = ~holds[self._snapshot.owners]
            self._left_out = left_out if self._base.dead is None else left_out | self._base.dead

    def pool(self, query: Query) -> _Pool:
        """The shortlist, with cosines."""
        if self._shortlist is None:
            return self._everything(query)
        words, shortlist = self._snapshot.words(query), self._shortlist
        rows = _union([self._scan(words, factors, shortlist) for factors in self._factors])
        vectors = self._snapshot.vectors(self._snapshot.records(rows))
        return _Pool(rows, {space: vectors[space] @ vector for space, vector in query.items()})

    def _everything(self, query: Query) -> _Pool:
        """All rows, with cosines."""
        rows = self._rows
        if rows is None:
            scanned = np.ones(self._snapshot.objects, np.bool_)
            scanned[self._left_out] = False
            rows = np.flatnonzero(scanned)
        records = self._snapshot.file.array("records")
        cosines = {space: np.empty(len(rows), np.float32) for space in query}
        for first in range(0, len(rows), _READ_AT_ONCE):
            vectors = self._snapshot.vectors(records[rows[first : first + _READ_AT_ONCE]])
            for space, vector in query.items():
                cosines[space][first : first + _READ_AT_ONCE] = vectors[space] @ vector
        return _Pool(rows, cosines)

    def _scan(self, words: Words, factors: Sequence[tuple[slice, int]], shortlist: int) -> Rows:
        """Rows of the snapshot, in any order."""
        fused = fused_distances(self._planes, words, factors)
        fused[self._left_out] = LARGEST
        found = nearest(fused, shortlist)
        if len(self._left_out):
            if self._left_out.dtype == np.bool_:
                found = found[~self._left_out[found]]
            else:
                found = found[~np.isin(found, self._left_out)]
        return found if self._rows is None else self._rows[found]

    def candidates(self, rows: Rows, named: dict[str, Product]) -> list[Candidate]:
        """Of those rows, without their similarities; their products join `named`."""
        records = self._snapshot.records(rows)
        vectors = self._snapshot.vectors(records)
        identity = vectors.get(IDENTITY)
        numbers, owners = self._snapshot.image_numbers[rows].tolist(), self._snapshot.owners[rows].tolist()
        written: dict[int, Product] = {}  # as the snapshot has them: image numbers are of these
        candidates = []
        for place, (number, owner, box) in enumerate(
            zip(numbers, owners, records["box"].tolist(), strict=True)
        ):
            product = written.get(owner)
            if product is None:
                product = written[owner] = Product.FromString(self._snapshot.product_bytes(owner))
                if product.id not in named:
                    named[product.id] = self._base.product(owner, self._fresh) or product
            candidate = Candidate(product_id=product.id, image_sha256=product.images[number])
            candidate.box.CopyFrom(Box(x0=box[0], y0=box[1], x1=box[2], y1=box[3]))
            if identity is not None:
                candidate.identity = identity[place].tobytes()
            candidates.append(candidate)
        return candidates


class _Fresh:
    """The fresh layer's part of a search: exact."""

    def __init__(self, view: FreshView, holds: NDArray[np.bool_] | None) -> None:
        self._view = view
        rows = view.rows(holds)
        self._rows = np.arange(len(view.owner)) if rows is None else rows
        self._vectors = view.spaces
        if rows is not None:
            self._vectors = {space: vectors[rows] for space, vectors in view.spaces.items()}

    def pool(self, query: Query) -> _Pool:
        """All rows, with cosines."""
        if not len(self._rows):
            return _Pool(self._rows, {space: np.empty(0, np.float32) for space in query})
        return _Pool(self._rows, {space: self._vectors[space] @ vector for space, vector in query.items()})

    def candidates(self, rows: Rows, named: dict[str, Product]) -> list[Candidate]:
        """Of those rows, without their similarities; their products join `named`."""
        identity = self._view.spaces.get(IDENTITY)
        candidates = []
        for row in rows.tolist():
            candidate = Candidate.FromString(self._view.objects[row])  # half the time of the constructor
            if identity is not None:
                candidate.identity = identity[row].tobytes()
            named[candidate.product_id] = self._view.columns.products[self._view.owner[row]]
            candidates.append(candidate)
        return candidates


def _union(parts: Sequence[Rows]) -> Rows:
    """All rows of at least one part, ascending."""
    return np.sort(parts[0]) if len(parts) == 1 else np.unique(np.concatenate(parts))


def _largest(similarity: Similarity, limit: int) -> Rows:
    """Where the `limit` largest values are, in any order."""
    if len(similarity) <= limit:
        return np.arange(len(similarity))
    return np.argpartition(similarity, -limit)[-limit:]
