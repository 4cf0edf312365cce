"""Logs and metrics of every call, through Powertools, in one place.

One structured line and one EMF metric a call; never a key, a photo or a vector. Traces are X-Ray's, where
Lambda turns them on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from aws_lambda_powertools import Logger, Tracer, single_metric
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from magpie.errors import MagpieError
from magpie.rpc.context import CallContext

NAMESPACE = "Magpie"


class CompactionMetrics:
    """Metrics of compaction, of all customers together: the log says whose index it was."""

    def compacted(self, objects: int, seconds: float) -> None:
        """One index is."""
        metrics = _compaction_metrics()
        metrics.add_metric("CompactedIndexes", MetricUnit.Count, 1)
        metrics.add_metric("CompactedObjects", MetricUnit.Count, objects)
        metrics.add_metric("CompactionSeconds", MetricUnit.Seconds, seconds)
        metrics.flush_metrics()

    def failed(self) -> None:
        """One index could not be."""
        metrics = _compaction_metrics()
        metrics.add_metric("CompactionFailures", MetricUnit.Count, 1)
        metrics.flush_metrics()


def _compaction_metrics() -> EphemeralMetrics:
    return EphemeralMetrics(namespace=NAMESPACE, service="compaction")


class ProbeMetrics:
    """Metrics of the recall probe, by customer.

    No alarm can watch a metric of every customer there may be; it watches `RecentRecallAt10`, which has no
    customer: its minimum over some time is the recall of the customer who has the lowest.
    """

    def lost(self) -> None:
        """A sampled search that was not sent."""
        _probe_metric("ProbesLost", MetricUnit.Count, 1)

    def probed(self, customer: str) -> None:
        """A sampled search that was looked at."""
        _probe_metric("Probes", MetricUnit.Count, 1, customer)

    def recall(self, customer: str, recall: float, recent: float | None) -> None:
        """Of one search, and the mean of the customer's last ones, None while they are too few."""
        _probe_metric("RecallAt10", MetricUnit.NoUnit, recall, customer)
        if recent is not None:
            _probe_metric("RecentRecallAt10", MetricUnit.NoUnit, recent)


def _probe_metric(name: str, unit: MetricUnit, value: float, customer: str = "") -> None:
    with single_metric(name=name, unit=unit, value=value, namespace=NAMESPACE) as metric:
        metric.add_dimension("service", "probe")
        if customer:
            metric.add_dimension("customer", customer)


class Telemetry:
    """`service` is the function's name. It is a registry's `observe`."""

    def __init__(self, service: str) -> None:
        self._logger = Logger(service=service)
        self._tracer = Tracer(service=service)
        self._service = service
        self._cold = True

    @contextmanager
    def call(self, path: str, context: CallContext) -> Iterator[None]:
        """Around one call."""
        start = time.perf_counter()
        code = "OK"
        try:
            with self._tracer.provider.in_subsegment(f"## {path.rsplit('/', 1)[-1]}"):
                yield
        except MagpieError as error:
            code = error.code
            raise
        finally:
            milliseconds = (time.perf_counter() - start) * 1000
            self._report(path, context, code, milliseconds)

    def _report(self, path: str, context: CallContext, code: str, milliseconds: float) -> None:
        self._logger.info(
            "call",
            extra={
                "method": path,
                "customer": context.customer,
                "trace_id": context.trace_id,
                "code": code,
                "duration_ms": round(milliseconds, 2),
                "cold_start": self._cold,
            },
        )
        if self._cold:
            self._cold = False
            with single_metric(
                name="ColdStart", unit=MetricUnit.Count, value=1, namespace=NAMESPACE
            ) as metric:
                metric.add_dimension("service", self._service)
        with single_metric(
            name="Latency", unit=MetricUnit.Milliseconds, value=milliseconds, namespace=NAMESPACE
        ) as metric:
            metric.add_dimension("service", self._service)
            metric.add_dimension("method", path.rsplit("/", 1)[-1])
            metric.add_dimension("code", code)
