"""One look at all customers' indexes: those that are due are compacted, one after the other.

A round begins nothing after its first minute, since the next round has its whole time before it. So a large
index, or one whose compaction is killed again and again, keeps no other waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from aws_lambda_powertools import Logger

from magpie.errors import Aborted, MagpieError
from magpie.index.compaction import Compacted, compact
from magpie.index.compaction_policy import Backlog, Backlogs, Thresholds
from magpie.index.hash_model import HashModel
from magpie.store.catalogue import Catalogue
from magpie.store.compaction_leases import CompactionLeases
from magpie.store.snapshots import Snapshots

BEGINS_WITHIN_SECONDS = 60.0
_logger = Logger(service="compaction")


class Metrics(Protocol):
    """Where a round reports to."""

    def compacted(self, objects: int, seconds: float) -> None:
        """One index is."""

    def failed(self) -> None:
        """One index could not be, or not be looked at."""


@dataclass
class Outcome:
    """Of a round; entries are `CUSTOMER BUNDLE`."""

    compacted: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)  # a compaction was at work on it
    failed: dict[str, str] = field(default_factory=dict)  # and why


class CompactionRound:
    """`models`: bundle -> its hash model; indexes of other bundles are left as they are."""

    def __init__(
        self,
        catalogue: Catalogue,
        snapshots: Snapshots,
        leases: CompactionLeases,
        models: Mapping[str, HashModel],
        thresholds: Thresholds,
        metrics: Metrics,
    ) -> None:
        self._catalogue = catalogue
        self._snapshots = snapshots
        self._leases = leases
        self._models = models
        self._thresholds = thresholds
        self._metrics = metrics
        self._backlogs = Backlogs(catalogue, snapshots)
        self._not_compacted: set[str] = set()  # bundles that the log has told of

    def run(self, customers: Sequence[str], seconds_left: Callable[[], float]) -> Outcome:
        """One customer's failure keeps no other waiting. Raises MagpieError in the end if there was one.

        `seconds_left` until this process is stopped.
        """
        began = time.monotonic()
        outcome = Outcome()
        for customer, bundle in self._indexes(customers):
            if time.monotonic() - began > BEGINS_WITHIN_SECONDS:
                break
            try:
                self._look_after(customer, bundle, seconds_left(), outcome)
            except Exception as error:  # whatever it is, it is this index's alone
                _logger.exception("not compacted", customer=customer, bundle=bundle)
                self._metrics.failed()
                outcome.failed[f"{customer} {bundle}"] = str(error)
        if outcome.failed:
            reasons = "; ".join(f"{index}: {reason}" for index, reason in outcome.failed.items())
            raise MagpieError(f"{len(outcome.failed)} of the indexes could not be compacted: {reasons}")
        return outcome

    def _indexes(self, customers: Sequence[str]) -> Iterator[tuple[str, str]]:
        for customer in customers:
            for bundle in self._catalogue.bundles(customer):
                if bundle in self._models:
                    yield customer, bundle
                elif bundle not in self._not_compacted:
                    self._not_compacted.add(bundle)
                    _logger.warning("a bundle is not compacted: there is no hash model of it", bundle=bundle)

    def _look_after(self, customer: str, bundle: str, seconds: float, outcome: Outcome) -> None:
        backlog = self._backlogs.of(customer, bundle, self._thresholds.changes)
        if not self._thresholds.reached(backlog):
            return
        with self._leases.take(customer, bundle, seconds) as taken:
            done = self._compacted(backlog) if taken else None
        if done is not None:
            outcome.compacted.append(f"{customer} {bundle}")
        elif not taken:
            outcome.elsewhere.append(f"{customer} {bundle}")

    def _compacted(self, backlog: Backlog) -> Compacted | None:
        """None: nothing was left to do, or another one was faster."""
        customer, bundle = backlog.customer, backlog.bundle
        try:
            done = compact(self._catalogue, self._snapshots, self._models[bundle], customer, bundle)
        except Aborted as error:
            _logger.info("compacted by another one", customer=customer, bundle=bundle, reason=str(error))
            return None
        if done is not None:
            _logger.info("compacted", customer=customer, bundle=bundle, **asdict(done))
            self._metrics.compacted(done.objects, done.seconds)
        return done
