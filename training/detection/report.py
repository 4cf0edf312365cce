"""The report of a detector: a page of tables, and a page of failures for each set. All are self-contained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.detection.box_sizes import LARGE, SIDE, SMALL
from training.detection.evaluate import SetResult
from training.detection.failure_pictures import failure_pictures
from training.detection.failures import MEANING
from training.detection.outlined import ERROR, FOUND, TRUE
from training.detection.pages import environment

PAGE, FIGURES = "report.html", "report.json"


@dataclass(frozen=True)
class Heading:
    """What the report is of."""

    detector: str
    date: str
    command: str


def write_report(
    results: Sequence[SetResult], heading: Heading, figures: Mapping[str, Any], out: Path
) -> list[Path]:
    """Write PAGE, FIGURES and a page of failures for each set to `out`; the paths of the pages, PAGE first.

    Failures are those of `heading.detector`; those of others are only counted. Raises OSError.
    """
    out.mkdir(parents=True, exist_ok=True)
    pages_of = environment()
    own = [result for result in results if result.detector == heading.detector]
    pages = {result.set.name: f"failures-{slug(result.set.name)}.html" for result in own}
    shared = {"heading": heading, "colours": {"there": TRUE, "found": FOUND, "wrong": ERROR}}
    sizes = (
        f"Every photo counts as {SIDE} px wide and high. Small: under {SMALL} px squared; large: over {LARGE}"
    )
    page = pages_of.get_template("report.html.j2").render(
        **shared, results=results, pages=pages, meanings=MEANING, sizes=sizes
    )
    (out / PAGE).write_text(page, encoding="utf-8")
    (out / FIGURES).write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for result in own:
        page = pages_of.get_template("failures.html.j2").render(
            **shared, result=result, kinds=failure_pictures(result), report=PAGE
        )
        (out / pages[result.set.name]).write_text(page, encoding="utf-8")
    return [out / PAGE, *(out / page for page in pages.values())]


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
