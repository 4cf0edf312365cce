"""The report: one self-contained page, all figures as JSON, maps for a later run, bad cases."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from magpie.errors import InvalidArgument
from magpie.vision.model_card import ModelCard
from training.datasets.example import Example
from training.evaluation.evaluation import Evaluation, SetEvaluation
from training.evaluation.figures import WORST, figures
from training.evaluation.map_plot import map_png
from training.evaluation.metrics import METRICS
from training.evaluation.ranking import value_of
from training.evaluation.vector_map import VectorMap, load_maps, save_maps
from training.evaluation.worst_cases import worst_cases, write_bad_cases

PAGE, FIGURES, MAPS, BAD_CASES = "report.html", "report.json", "maps.npz", "bad_cases"
THUMBNAIL = 144  # px, longer side


@dataclass(frozen=True)
class Heading:
    """What the report is of."""

    bundle: str  # name@version
    folder: str
    cards: Sequence[ModelCard]
    peer: str | None  # title of the model beside
    date: str
    command: str
    left_out: Sequence[str]  # sets that are not on the machine, and why
    note: str = ""


def write_report(evaluation: Evaluation, heading: Heading, out: Path) -> dict[str, Any]:
    """Write PAGE, FIGURES, MAPS and BAD_CASES/SET.csv to `out`; what FIGURES holds."""
    out.mkdir(parents=True, exist_ok=True)
    content = {**_heading(heading), **figures(evaluation)}
    for one in evaluation.sets:
        if one.entry.relevant == "product":
            write_bad_cases(one.ranking, out / BAD_CASES / f"{one.entry.name}.csv")
    if evaluation.maps:
        save_maps({space: drawn.drawn for space, drawn in evaluation.maps.items()}, out / MAPS)
    (out / FIGURES).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / PAGE).write_text(_page(content, evaluation), encoding="utf-8")
    return content


def earlier_maps(report: Path) -> dict[str, VectorMap]:
    """Of a report's folder, or of its maps' file. Raises InvalidArgument if there are none."""
    path = report / MAPS if report.is_dir() else report
    if not path.is_file():
        raise InvalidArgument("--map", f"there is no {path}: name the folder of a report that has maps")
    return load_maps(path)


def _heading(heading: Heading) -> dict[str, Any]:
    return {
        "bundle": heading.bundle,
        "folder": heading.folder,
        "date": heading.date,
        "command": heading.command,
        "peer": heading.peer,
        "note": heading.note,
        "left_out": list(heading.left_out),
        "models": [asdict(card) for card in heading.cards],
    }


def _page(content: Mapping[str, Any], evaluation: Evaluation) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = _percent
    environment.filters["points"] = lambda value: f"{100 * value:+.1f}"
    return environment.get_template("report.html.j2").render(
        **content,
        metrics=METRICS,
        maps_drawn={space: _png(map_png(drawn)) for space, drawn in evaluation.maps.items()},
        cases={one.entry.name: _cases(one) for one in evaluation.sets},
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _cases(one: SetEvaluation) -> list[dict[str, Any]]:
    def shown(example: Example) -> dict[str, str]:
        name = value_of(example, one.entry.relevant) or ""
        product = example.product if one.entry.relevant != "product" else ""
        return {
            "picture": _thumbnail(example),
            "name": name,
            "product": product or "",
            "file": example.path.name,
        }

    return [
        {
            "query": shown(case.query.example),
            "place": case.place,
            "right": shown(case.right),
            "hits": [{**shown(hit.example), "score": hit.score, "is_right": hit.right} for hit in case.hits],
        }
        for case in worst_cases(one.ranking, WORST)
    ]


def _thumbnail(example: Example) -> Markup:
    picture = example.load(2 * THUMBNAIL)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return _uri("image/jpeg", buffer.getvalue())


def _png(data: bytes) -> Markup:
    return _uri("image/png", data)


def _uri(kind: str, data: bytes) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")  # noqa: S704 - our own bytes
