"""Detectors beside each other, as a table in a page of the documentation."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magpie.errors import InvalidArgument
from training.detection.cost import RUNS, Cost
from training.detection.evaluate import SERVED, plain

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
FIGURES = ("AP", "AP50", "AP75", "recall@100", SERVED)
COSTS = ("parameters M", "GFLOPs", "ONNX MB", "ms, 1 thread", "ms, 2 threads", "steps", "minutes")
HEADINGS = ("detector", "input px", *FIGURES, "AP, places alone", *COSTS)
NEW_PAGE = f"# Detectors\n\n{BEGIN}\n{END}\n"


@dataclass(frozen=True)
class Row:
    """One detector. What is not measured of it is None."""

    detector: str
    size: int | None  # px
    figures: dict[str, float] | None  # FIGURES
    places: float  # AP with all classes taken as one
    cost: Cost

    def summary(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = plain(asdict(self))
        return found


def page_part(rows: Sequence[Row], about: str) -> str:
    """What stands between the markers: a line about the set and the machine, and the table."""
    lines = [
        f"*{about}; {processor()}, load of the machine {os.getloadavg()[0]:.1f}; times are medians of at "
        f"most {RUNS} runs of the float32 network on one photo, with its proposals where it needs them.*",
        "",
        _line(HEADINGS),
        _line(["---"] + ["---:"] * (len(HEADINGS) - 1)),
    ]
    return "\n".join([*lines, *(_line(_cells(row)) for row in rows)])


def write_between(page: Path, text: str) -> None:
    """Put `text` between the markers of a page, which is made if it is not there.

    Raises InvalidArgument if the page lacks the markers: where the table belongs is for its author to say.
    """
    content = page.read_text(encoding="utf-8") if page.exists() else NEW_PAGE
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InvalidArgument(str(page), f"lacks the lines {BEGIN} and {END}, between which the table goes")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def processor() -> str:
    """The machine's, as its maker names it."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cells(row: Row) -> list[str]:
    figures, cost = row.figures or {}, row.cost
    return [
        row.detector,
        "" if row.size is None else str(row.size),
        *(_figure(figures.get(name)) for name in FIGURES),
        _figure(row.places),
        f"{cost.parameters / 1e6:.2f}",
        "" if cost.gflops is None else f"{cost.gflops:.2f}",
        f"{cost.bytes / 1e6:.1f}",
        *(f"{cost.ms[threads]:.1f}" for threads in (1, 2)),
        "" if cost.steps is None else f"{cost.steps:,}",
        "" if cost.minutes is None else f"{cost.minutes:.0f}",
    ]


def _figure(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
