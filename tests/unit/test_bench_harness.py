"""The figures that benches print are what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.harness import measure, percentile, report, row_of


def test_percentiles_are_times_that_were_seen() -> None:
    times = [float(value) for value in range(100, 0, -1)]
    assert [percentile(times, p) for p in (50, 95, 99, 100)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([7.0], 99) == 7.0


def test_throughput_counts_items_of_all_clients() -> None:
    row = row_of("crops", [10.0] * 20, seconds=2.0, items=5)
    assert (row.calls, row.per_second) == (20, 50.0)


def test_every_client_calls_and_warming_up_is_not_counted() -> None:
    calls = {"a": 0, "b": 0}

    def call(name: str) -> None:
        calls[name] += 1

    row = measure("two", lambda: call("a"), clients=[lambda: call("b")], seconds=0.05, warm_up=3)
    assert calls["a"] > 3
    assert calls["b"] > 3
    assert row.calls == calls["a"] + calls["b"] - 6


def test_a_failing_client_fails_the_bench() -> None:
    results = iter([None, None])

    def fails() -> None:
        if next(results, "over") == "over":
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        measure("one", lambda: None, clients=[fails], seconds=0.05, warm_up=1)


def test_the_json_holds_the_rows_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report("sample", [row_of("x", [1.0, 3.0], seconds=1.0)], bundle="b@1")
    written = json.loads((tmp_path / ".bench" / "sample.json").read_text())
    assert written["rows"] == [
        {"what": "x", "calls": 2, "p50": 1.0, "p95": 3.0, "p99": 3.0, "per_second": 2.0, "note": ""}
    ]
    assert written["bundle"] == "b@1"
    assert written["peak_memory_mb"] > 0
