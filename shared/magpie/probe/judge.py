"""Answers a sampled search exactly, and compares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from magpie.errors import FailedPrecondition, Unavailable
from magpie.index.engine import Engine
from magpie.index.filter import parse
from magpie.index.filter_terms import And, Filter
from magpie.index.vectors import vectors_of
from magpie.probe.recall import KEPT, Recall, measures_of, recall
from magpie.v1.probe_pb2 import SampledSearch

WIDTH = 1000  # of an exact answer: enough to have 10 left when products that changed are taken out
CLOCKS_DIFFER_SECONDS = 1.0  # at most so much, a function's and Redis'


class ChangeStream(Protocol):
    """Where every change of a catalogue is written down."""

    def products_changed_since(self, customer: str, seconds: float) -> set[str] | None:
        """Ids of the products of which anything changed since then; None: the stream no longer tells."""


class Judge:
    """`exact` finds all that there is to find."""

    def __init__(
        self, exact: Engine, changes: ChangeStream, clocks_differ: float = CLOCKS_DIFFER_SECONDS
    ) -> None:
        self._exact = exact
        self._changes = changes
        self._clocks_differ = clocks_differ

    def judge(self, search: SampledSearch) -> Recall:
        """recall@10 over all its queries; nothing wanted where the catalogue moved on too far to tell.

        Raises InvalidArgument if it is no search, Unavailable while the index or its changes cannot be read.
        """
        request, customer = search.request, search.customer
        queries = [vectors_of(query, f"queries[{row}]") for row, query in enumerate(request.queries)]
        condition = _all_of(request.filters)
        measures = measures_of(request, queries[0])
        answers = []
        for measure in measures:
            try:
                exact = self._exact.find(customer, request.bundle, queries, condition, WIDTH, measure)
            except FailedPrecondition:  # the bundle was dropped since
                return Recall()
            if exact.stale:
                raise Unavailable("the exact answer is stale")
            answers.append(exact.results)
        # After the exact answers, so that no change between the two sides goes unseen.
        changed = self._changes.products_changed_since(customer, search.asked_at - self._clocks_differ)
        if changed is None:
            return Recall()
        limit = request.limit_per_space or KEPT  # the default is more than is kept
        return sum(
            (
                recall(found.candidates, exact, measure, limit, WIDTH, changed)
                for measure, results in zip(measures, answers, strict=True)
                for found, exact in zip(search.found, results, strict=True)
            ),
            Recall(),
        )


def _all_of(filters: Iterable[str]) -> Filter | None:
    conditions = tuple(parse(text) for text in filters if text.strip())
    return And(conditions) if len(conditions) > 1 else next(iter(conditions), None)
