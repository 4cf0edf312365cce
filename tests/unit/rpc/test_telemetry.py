"""What is logged and measured of a call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from magpie.errors import NotFound
from magpie.rpc.context import CallContext
from magpie.telemetry import Telemetry

DETECT = "/magpie.v1.DetectionService/Detect"
CONTEXT = CallContext(customer="shop", trace_id="trace", metadata={"x-api-key": "the-secret-key"})


def output(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Log lines, and metrics."""
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [p for p in printed if "_aws" not in p], [p for p in printed if "_aws" in p]


def test_a_call_leaves_one_line_and_one_metric(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    telemetry = Telemetry(request.node.name)
    with telemetry.call(DETECT, CONTEXT):
        pass
    (line,), (_cold, metric) = output(capsys)
    fields = {name: line[name] for name in ("service", "method", "customer", "trace_id", "code")}
    assert fields == {
        "service": request.node.name,
        "method": DETECT,
        "customer": "shop",
        "trace_id": "trace",
        "code": "OK",
    }
    assert line["duration_ms"] >= 0
    assert metric["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Magpie"
    assert metric["_aws"]["CloudWatchMetrics"][0]["Metrics"] == [{"Name": "Latency", "Unit": "Milliseconds"}]
    assert (metric["method"], metric["code"]) == ("Detect", "OK")


def test_a_failed_call_is_reported_and_still_fails(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    with pytest.raises(NotFound), Telemetry(request.node.name).call(DETECT, CONTEXT):
        raise NotFound("no such upload")
    (line,), (_cold, metric) = output(capsys)
    assert (line["code"], metric["code"]) == ("NOT_FOUND", "NOT_FOUND")


def test_only_the_first_call_of_a_process_is_cold(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    telemetry = Telemetry(request.node.name)
    for _ in range(2):
        with telemetry.call(DETECT, CONTEXT):
            pass
    lines, metrics = output(capsys)
    assert [line["cold_start"] for line in lines] == [True, False]
    assert [metric.get("ColdStart") for metric in metrics] == [[1.0], None, None]


def test_no_key_is_logged(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    with Telemetry(request.node.name).call(DETECT, CONTEXT):
        pass
    assert "the-secret-key" not in capsys.readouterr().out
