"""The probe behind its queue: judges sampled searches, keeps and reports what comes out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from statistics import fmean
from typing import Any, Protocol

from magpie.errors import MagpieError
from magpie.ingest.parking_queue import ParkingQueue
from magpie.probe.judge import Judge
from magpie.probe.message import search_of
from magpie.store.probe_results import ProbeResult, ProbeResults
from magpie.v1.probe_pb2 import SampledSearch

RECENT = 100  # results of which the mean is watched
ENOUGH = 20  # fewer say too little

_log = logging.getLogger(__name__)


class Meter(Protocol):
    """Where the figures go."""

    def probed(self, customer: str) -> None:
        """A sampled search was looked at."""

    def recall(self, customer: str, recall: float, recent: float | None) -> None:
        """Of one search, and the mean of the customer's last ones, None while they are too few."""


class ProbeConsumer:
    """Takes the batches of the probe's queue. A search that is delivered twice counts twice."""

    def __init__(self, judge: Judge, results: ProbeResults, meter: Meter, parking: ParkingQueue) -> None:
        self._judge = judge
        self._results = results
        self._meter = meter
        self._parking = parking

    def handle(self, event: Mapping[str, Any], _lambda_context: Any) -> dict[str, Any]:
        """A batch in, the items that are to be delivered again out (`ReportBatchItemFailures`)."""
        failed = [record["messageId"] for record in event["Records"] if not self._settled(record)]
        return {"batchItemFailures": [{"itemIdentifier": id_} for id_ in failed]}

    def _settled(self, record: Mapping[str, Any]) -> bool:
        """Whether the queue may forget an item: it is judged, or it is parked."""
        try:
            self._probe(search_of(record["body"]))
        except MagpieError as error:
            return self._parked(record, error)
        return True

    def _parked(self, record: Mapping[str, Any], error: MagpieError) -> bool:
        attempts = int(record["attributes"]["ApproximateReceiveCount"])
        park = self._parking.is_for(error, attempts)
        outcome = "parked" if park else "to be tried again"
        _log.warning("a probe failed: attempt %d, %s: %s", attempts, outcome, error)
        try:
            if park:
                self._parking.park(record["body"], error, attempts)
        except MagpieError as worse:
            _log.warning("not parked, left to the queue: %s", worse)
            return False
        return park

    def _probe(self, search: SampledSearch) -> None:
        recall = self._judge.judge(search)
        result = ProbeResult(
            search.asked_at, search.request.bundle, recall.hits, recall.wanted, search.trace_id
        )
        self._results.add(search.customer, result)
        self._meter.probed(search.customer)
        if result.recall is not None:
            self._meter.recall(search.customer, result.recall, self._recent(search.customer, result.bundle))

    def _recent(self, customer: str, bundle: str) -> float | None:
        results = self._results.last(customer, RECENT)
        recalls = [r.recall for r in results if r.bundle == bundle and r.recall is not None]
        return fmean(recalls) if len(recalls) >= ENOUGH else None
