"""The compact engine, first form: all vectors in process as float32, scanned whole: exact under any filter.

A customer's table is loaded from Redis when it is first searched, and catches up with the stream of changes
before every answer: one round trip when nothing changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.index.engine import Found, Query, Weights, shares_of
from magpie.index.filter_terms import Filter
from magpie.index.object_table import ObjectTable, View
from magpie.store.catalogue import Catalogue
from magpie.v1.search_pb2 import Candidate

IDENTITY = "identity"  # the space whose vectors travel with candidates, to tell near-duplicates
_QUERIES_AT_ONCE = 8  # bounds the memory of their similarities to all rows
_GATHER_BELOW = (
    0.25  # share of the rows under a filter below which copying them out is cheaper than scanning all
)

Rows = NDArray[np.intp]
Similarity = NDArray[np.float32]  # (rows,), cosine


class CompactEngine:
    """Engine over `catalogue`. Thread-safe. Keeps the tables searched last, up to about `capacity_bytes`."""

    def __init__(self, catalogue: Catalogue, capacity_bytes: int = 1 << 30) -> None:
        self._catalogue = catalogue
        self._capacity = capacity_bytes
        self._tables: OrderedDict[tuple[str, str], _LiveTable] = OrderedDict()
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
        view = self._table(customer, bundle).view()
        self._bound_memory()
        if not view.spaces:
            self._refuse_other_bundles(customer, bundle)
            return Found([[] for _ in queries], [])
        matrices = _query_matrices(queries, {name: v.shape[1] for name, v in view.spaces.items()})
        shares = None if weights is None else shares_of(weights, view.spaces)
        results = []
        named: set[int] = set()  # product rows
        for rows, similarities in _nearest(view, matrices, view.rows(condition), limit, shares):
            results.append(_candidates(view, rows, similarities))
            named.update(view.owner[rows].tolist())
        return Found(results, [view.columns.products[row] for row in sorted(named)])

    def _table(self, customer: str, bundle: str) -> _LiveTable:
        with self._lock:
            table = self._tables.get((customer, bundle))
            if table is None:
                table = self._tables[customer, bundle] = _LiveTable(self._catalogue, customer, bundle)
            self._tables.move_to_end((customer, bundle))
            return table

    def _bound_memory(self) -> None:
        """Forget the tables that were searched longest ago; never the last one."""
        with self._lock:
            total = sum(table.nbytes for table in self._tables.values())
            while total > self._capacity and len(self._tables) > 1:
                _, forgotten = self._tables.popitem(last=False)
                total -= forgotten.nbytes

    def _refuse_other_bundles(self, customer: str, bundle: str) -> None:
        others = [other for other in self._catalogue.bundles(customer) if other != bundle]
        if others:
            raise FailedPrecondition(
                f"bundle: the index has objects of {', '.join(sorted(others))}, none of {bundle}: index again"
            )


class _LiveTable:
    """A table and its place in the stream of changes."""

    def __init__(self, catalogue: Catalogue, customer: str, bundle: str) -> None:
        self._catalogue = catalogue
        self._customer = customer
        self._bundle = bundle
        self._table = ObjectTable()
        self._current: tuple[str, View] | None = None  # place in the stream, and the view at it
        self._lock = threading.Lock()
        self.nbytes = 0

    def view(self) -> View:
        """A view that has every write that returned before the call."""
        current = self._current
        if current is not None:
            cursor, view = current
            changes = self._catalogue.read_changes(self._customer, self._bundle, cursor)
            if changes is not None and changes.cursor == cursor:
                return view
        with self._lock:
            self._catch_up()
            assert self._current is not None
            return self._current[1]

    def _catch_up(self) -> None:
        cursor = self._current[0] if self._current else self._load()
        more = True
        while more:
            changes = self._catalogue.read_changes(self._customer, self._bundle, cursor)
            if changes is None:
                self._current = None
                cursor = self._load()
                continue
            if changes.cursor != cursor:
                self._current = None  # should Redis fail before the end, the table is loaded anew
                self._table.apply(changes.products, changes.objects)
                cursor = changes.cursor
            more = changes.more
        if self._current is None:
            self._current = (cursor, self._table.view())
            self.nbytes = self._table.nbytes

    def _load(self) -> str:
        self._table = ObjectTable()
        cursor = ""
        for part in self._catalogue.load(self._customer, self._bundle):
            self._table.apply(part.products, part.objects)
            cursor = part.cursor
        return cursor


def _query_matrices(
    queries: Sequence[Query], dimensions: Mapping[str, int]
) -> dict[str, NDArray[np.float32]]:
    """Space -> (queries, dimension)."""
    for row, query in enumerate(queries):
        sizes = {space: len(vector) for space, vector in query.items()}
        if sizes != dimensions:
            raise InvalidArgument(
                f"queries[{row}].vectors", f"the index has the dimensions {dict(dimensions)}, got {sizes}"
            )
    matrices = {space: np.stack([query[space] for query in queries]) for space in dimensions}
    for space, matrix in matrices.items():
        finite = np.isfinite(matrix).all(axis=1)
        if not finite.all():
            raise InvalidArgument(f"queries[{finite.argmin()}].vectors", f"values in {space} are not finite")
    return matrices


def _nearest(
    view: View,
    queries: Mapping[str, NDArray[np.float32]],
    rows: Rows | None,
    limit: int,
    shares: Mapping[str, float] | None,
) -> Iterator[tuple[Rows, dict[str, Similarity]]]:
    """For each query its candidates' rows, and space -> their similarity to it."""
    scanned = view.spaces
    if rows is not None and len(rows) < _GATHER_BELOW * len(view.owner):
        scanned = {space: vectors[rows] for space, vectors in view.spaces.items()}
    for start in range(0, len(next(iter(queries.values()))), _QUERIES_AT_ONCE):
        stop = start + _QUERIES_AT_ONCE
        # (rows, queries), each: this order is the faster one for few queries
        similarities = {space: scanned[space] @ queries[space][start:stop].T for space in queries}
        if rows is not None and scanned is view.spaces:
            similarities = {space: similarity[rows] for space, similarity in similarities.items()}
        for of_query in zip(*(similarity.T for similarity in similarities.values()), strict=True):
            if shares is None:
                found = np.unique(np.concatenate([_largest(similarity, limit) for similarity in of_query]))
            else:
                fused = sum(
                    shares[s] * similarity for s, similarity in zip(similarities, of_query, strict=True)
                )
                found = _largest(np.asarray(fused), limit)
            yield (
                found if rows is None else rows[found],
                dict(
                    zip(
                        similarities,
                        (np.clip(similarity[found], -1, 1) for similarity in of_query),
                        strict=True,
                    )
                ),
            )


def _largest(similarity: Similarity, limit: int) -> Rows:
    """Where the `limit` largest values are, in any order."""
    if len(similarity) <= limit:
        return np.arange(len(similarity))
    return np.argpartition(similarity, -limit)[-limit:]


def _candidates(view: View, rows: Rows, similarities: Mapping[str, Similarity]) -> list[Candidate]:
    identity = view.spaces.get(IDENTITY)
    candidates = []
    for row, *values in zip(rows.tolist(), *(s.tolist() for s in similarities.values()), strict=True):
        candidate = Candidate.FromString(view.objects[row])  # half the time of the constructor
        if identity is not None:
            candidate.identity = identity[row].tobytes()
        similarity = candidate.similarity  # set one by one: half the time of an update
        for space, value in zip(similarities, values, strict=True):
            similarity[space] = value
        candidates.append(candidate)
    return candidates
