"""Measures calls, prints a table, writes the same as JSON. Every bench runs in a process of its own.

Times are wall-clock milliseconds of one call after warming up; percentiles are nearest-rank, so every figure
is a time that was seen. Peak memory is that of the bench's process.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

OUT = Path(".bench")


@dataclass(frozen=True)
class Row:
    """One line of a table. `per_second` counts items: pictures, queries."""

    what: str
    calls: int
    p50: float  # ms
    p95: float
    p99: float
    per_second: float
    note: str = ""


def percentile(milliseconds: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest sample that at least `percent` of the samples do not exceed."""
    ordered = sorted(milliseconds)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def row_of(what: str, milliseconds: Sequence[float], seconds: float, items: int = 1, note: str = "") -> Row:
    """Sum up the calls that were made in `seconds` of wall time, each of which did `items`."""
    p50, p95, p99 = (round(percentile(milliseconds, p), 3) for p in (50, 95, 99))
    return Row(what, len(milliseconds), p50, p95, p99, round(items * len(milliseconds) / seconds, 1), note)


def measure(
    what: str,
    call: Callable[[], object],
    *,
    seconds: float = 4.0,
    warm_up: int = 5,
    items: int = 1,
    clients: Sequence[Callable[[], object]] = (),
    note: str = "",
) -> Row:
    """Call again and again for `seconds`. `clients`: further callers, each in a thread of its own."""
    callers = [call, *clients]
    samples: list[list[float]] = [[] for _ in callers]
    for caller in callers:
        for _ in range(warm_up):
            caller()
    failures: list[Exception] = []
    begin = time.perf_counter()

    def work(caller: Callable[[], object], taken: list[float]) -> None:
        try:
            while (start := time.perf_counter()) < begin + seconds:
                caller()
                taken.append((time.perf_counter() - start) * 1000)
        except Exception as error:
            failures.append(error)  # raised below, where somebody hears it

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(callers[1:], samples[1:], strict=True)
    ]
    for thread in threads:
        thread.start()
    work(callers[0], samples[0])
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return row_of(what, [ms for taken in samples for ms in taken], time.perf_counter() - begin, items, note)


def report(name: str, rows: Sequence[Row], **facts: Any) -> None:
    """Print the table and write .bench/NAME.json."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    table = Table(title=f"{name}   (ms a call)", title_justify="left")
    table.add_column("what")
    for heading in ("calls", "p50", "p95", "p99", "items/s"):
        table.add_column(heading, justify="right")
    table.add_column("note")
    for row in rows:
        times = (f"{value:.2f}" for value in (row.p50, row.p95, row.p99))
        table.add_row(row.what, str(row.calls), *times, f"{row.per_second:,.1f}", row.note)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    facts = {"peak_memory_mb": round(peak, 1), **facts}
    console.print("  ".join(f"{key}: {value}" for key, value in facts.items()), style="dim")
    OUT.mkdir(exist_ok=True)
    written = {"name": name, "rows": [vars(row) for row in rows], **facts, "machine": machine()}
    (OUT / f"{name}.json").write_text(json.dumps(written, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    load = os.getloadavg()[0]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "load_at_end": round(load, 2),
        "commit": commit.stdout.strip(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
