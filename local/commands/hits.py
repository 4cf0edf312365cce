"""What `magpie search` and `magpie similar` have in common: options, and how hits are shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
from rich.table import Table

from local.commands.options import print_json, table_console, tell
from local.result_page import STAGES
from magpie.v1 import image_pb2
from magpie.v1.product_pb2 import AttributeValue
from magpie.v1.reranking_pb2 import Facet
from magpie.v1.visual_search_pb2 import ObjectHits, SearchResponse

VALUES_SHOWN = 10  # of a facet


class WeightType(click.ParamType[tuple[str, float]]):
    """`similar=1`."""

    name = "SPACE=WEIGHT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """Fails as a usage error."""
        space, _, weight = str(value).partition("=")
        try:
            return space, float(weight)
        except ValueError:
            self.fail(f"{value!r} is not a space and its weight, as in similar=1", param, ctx)


limit_option = click.option("-k", "limit", type=click.IntRange(1, 100), help="Hits an object.  [default: 10]")
filter_option = click.option("--filter", "filter_", default="", help="Only products for which this holds.")
weight_option = click.option(
    "--weight",
    "weights",
    type=WeightType(),
    multiple=True,
    help="In place of the ranking config's weights; again for further spaces.",
)
facet_option = click.option(
    "--facet", "facets", multiple=True, metavar="NAME", help="Count the values of NAME among what is found."
)
group_by_option = click.option(
    "--group-by",
    metavar="NAME",
    default="",
    help="Show only the best product of each value of NAME, as `group`.",
)
explain_option = click.option("--explain", is_flag=True, help="Tell of each hit how its score comes about.")
all_pages_option = click.option("--all-pages", is_flag=True, help="All hits, page after page.")


def merged(pages: Iterable[SearchResponse]) -> SearchResponse:
    """One answer with the hits of all pages, and the time of all."""
    whole = SearchResponse()
    for page in pages:
        if not whole.objects:
            whole.CopyFrom(page)
            continue
        for of_whole, of_page in zip(whole.objects, page.objects, strict=True):
            of_whole.hits.extend(of_page.hits)
        for stage, milliseconds in page.timings_ms.items():
            whole.timings_ms[stage] += milliseconds
        whole.stale |= page.stale
        whole.next_page_token = page.next_page_token
    return whole


def show(response: SearchResponse, customer: str, *, as_json: bool) -> None:
    """On standard output: the JSON form, or a table of each object's hits."""
    if as_json:
        print_json(answer(response))
        return
    for number, object_hits in enumerate(response.objects, start=1):
        table_console.print(_title(number, object_hits), highlight=False, markup=False)
        table_console.print(_table(object_hits))
        for facet in object_hits.facets:
            table_console.print(_facet_line(facet), highlight=False, markup=False)
    times = (f"{stage} {response.timings_ms[stage]:.0f}" for stage in STAGES if stage in response.timings_ms)
    tell(f"milliseconds: {', '.join(times)}")
    if response.stale:
        tell("the newest writes to the catalogue may be missing: Redis does not answer")
    if response.next_page_token:
        tell(f"more: magpie search --customer {customer} --page {response.next_page_token}")


def answer(response: SearchResponse) -> dict[str, Any]:
    """The JSON form."""
    return {
        "query_id": response.query_id,
        "bundle": response.bundle,
        "objects": [
            {
                "box": [round(side, 5) for side in corners(found.object.box)],
                "label": found.object.label,
                "score": round(found.object.score, 5),
                "hits": [
                    {
                        "product_id": hit.product_id,
                        "score": hit.score,
                        "probability": hit.probability if hit.HasField("probability") else None,
                        "title": hit.title,
                        "reasons": {reason.term: reason.value for reason in hit.reasons},
                        "stands_for": list(hit.stands_for),
                    }
                    for hit in found.hits
                ],
                "facets": {facet.name: _facet(facet) for facet in found.facets},
            }
            for found in response.objects
        ],
        "timings_ms": {stage: round(time, 3) for stage, time in response.timings_ms.items()},
        "next_page_token": response.next_page_token,
    }


def _facet(facet: Facet) -> dict[str, Any]:
    return {
        "products": facet.products,
        "distinct": facet.distinct,
        "min": facet.min if facet.HasField("min") else None,
        "max": facet.max if facet.HasField("max") else None,
        "values": [{"value": _plain(each.value), "products": each.products} for each in facet.values],
    }


def _plain(value: AttributeValue) -> str | float | bool:
    plain: str | float | bool = getattr(value, str(value.WhichOneof("kind")))
    return plain


def _facet_line(facet: Facet) -> str:
    span = f", {facet.min:g} to {facet.max:g}" if facet.HasField("min") else ""
    shown = [f"{_written(each.value)} ({each.products})" for each in facet.values[:VALUES_SHOWN]]
    more = [f"{facet.distinct - len(shown)} more"] if facet.distinct > len(shown) else []
    return f"{facet.name} of {facet.products} products{span}: {', '.join(shown + more) or 'none has it'}"


def _written(value: AttributeValue) -> str:
    plain = _plain(value)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return f"{plain:g}" if isinstance(plain, float) else plain


def corners(box: image_pb2.Box) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1)"""
    return box.x0, box.y0, box.x1, box.y1


def _title(number: int, found: ObjectHits) -> str:
    where = ", ".join(f"{side:.2f}" for side in corners(found.object.box))
    whole = found.object.whole_image or found.object.label == "image"
    what = "whole image" if whole else f"{found.object.label} {found.object.score:.2f}"
    return f"object {number}: {what} at {where}"


def _table(found: ObjectHits) -> Table:
    calibrated = any(hit.HasField("probability") for hit in found.hits)
    explained = any(hit.reasons for hit in found.hits)
    table = Table(box=None)
    table.add_column("", justify="right")
    table.add_column("product", style="bold")
    table.add_column("score", justify="right")
    if calibrated:
        table.add_column("probability", justify="right")
    table.add_column("title")
    grouped = any(hit.stands_for for hit in found.hits)
    if grouped:
        table.add_column("stands for")
    if explained:
        table.add_column("reasons")
    for place, hit in enumerate(found.hits, start=1):
        reasons = "  ".join(f"{reason.term} {reason.value:+.3f}" for reason in hit.reasons)
        cells = [str(place), hit.product_id, f"{hit.score:.3f}"]
        if calibrated:
            cells.append(f"{hit.probability:.2f}" if hit.HasField("probability") else "")
        cells.append(hit.title)
        if grouped:
            cells.append(", ".join([*hit.stands_for[:3], *(["..."] if len(hit.stands_for) > 3 else [])]))
        table.add_row(*cells, *((reasons,) if explained else ()))
    if not found.hits:
        table.add_row("", "no hits", "", "")
    return table
