"""A comparison as one self-contained page, with the pictures of the queries that changed sides."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import jinja2
from PIL import Image

from magpie.errors import UndecodableImage
from magpie.vision.decode import decode
from training.release.compare import Comparison, Flip, MetricComparison
from training.release.comparison_tables import p_text, verdict_text

SIDE = 160  # px, longer side of a picture
PICTURES = 48  # each way, a set; more are named only


def render(comparison: Comparison, a: str, b: str, data: Path) -> str:
    """HTML that asks for nothing from elsewhere. A picture that cannot be read is left out."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    widest = max((abs(end) for row in comparison.metrics() for end in (row.low, row.high)), default=0.0)
    sets = [
        {
            "name": entry.name,
            "queries": entry.queries,
            "rows": [_row(row, widest) for row in entry.metrics],
            "categories": entry.categories,
            "lost": _flips([flip for flip in entry.flips if flip.right == "A"], data),
            "won": _flips([flip for flip in entry.flips if flip.right == "B"], data),
        }
        for entry in comparison.sets
    ]
    return environment.get_template("comparison_page.html.j2").render(
        a=a, b=b, sets=sets, alpha=comparison.alpha, widest=widest
    )


def _row(row: MetricComparison, widest: float) -> dict[str, object]:
    """With the interval as percentages of an axis from -widest to +widest."""
    axis = widest or 1.0
    return {
        "row": row,
        "p": p_text(row.p_adjusted),
        "verdict": verdict_text(row),
        "left": 50 + 50 * row.low / axis,
        "width": 50 * (row.high - row.low) / axis,
        "mean": 50 + 50 * row.difference / axis,
    }


def _flips(flips: list[Flip], data: Path) -> dict[str, object]:
    shown = [{"flip": flip, "picture": _picture(data / flip.query)} for flip in flips[:PICTURES]]
    return {"number": len(flips), "shown": shown, "named": flips[PICTURES:]}


def _picture(path: Path) -> str:
    try:
        picture = Image.fromarray(decode(path.read_bytes(), 2 * SIDE).pixels)
    except (OSError, UndecodableImage):
        return ""
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
