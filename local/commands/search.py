"""`magpie search`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from local.commands.options import (
    customer_option,
    examples,
    home_option,
    json_option,
    print_json,
    table_console,
    tell,
)
from local.customers import reading
from local.home import Home
from local.result_page import STAGES, render
from magpie.errors import InvalidArgument
from magpie.geometry import Box
from magpie.v1 import image_pb2
from magpie.v1.product_pb2 import AttributeValue
from magpie.v1.reranking_pb2 import Facet
from magpie.v1.visual_search_pb2 import ObjectHits, SearchRequest, SearchResponse

VALUES_SHOWN = 10  # of a facet


class BoxType(click.ParamType[Box]):
    """`x0,y0,x1,y1` as fractions."""

    name = "x0,y0,x1,y1"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Box:
        """Fails as a usage error."""
        try:
            x0, y0, x1, y1 = (float(part) for part in str(value).split(","))
            return Box.checked(x0, y0, x1, y1)
        except InvalidArgument as problem:
            self.fail(str(problem), param, ctx)
        except ValueError:
            self.fail(f"{value!r} is not four numbers x0,y0,x1,y1", param, ctx)


@click.command(
    "search",
    epilog=examples(
        "magpie search photo.jpg --customer my-shop",
        """magpie search photo.jpg --customer my-shop --filter "category = 'Juice' and price < 20" -k 5""",
        "magpie search photo.jpg --customer my-shop --box 0.1,0.2,0.6,0.9 -k 5",
        "magpie search photo.jpg --customer my-shop --facet brand --facet price --group-by group",
        "magpie search photo.jpg --customer my-shop --html page.html",
    ),
)
@click.argument("photo", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@customer_option
@click.option(
    "-k", "limit", type=click.IntRange(1, 100), default=10, show_default=True, help="Hits an object."
)
@click.option("--box", type=BoxType(), help="Search this region alone; fractions of the width and height.")
@click.option("--filter", "filter_", default="", help="Only products for which this holds.")
@click.option(
    "--facet", "facets", multiple=True, metavar="NAME", help="Count the values of NAME among what is found."
)
@click.option(
    "--group-by",
    metavar="NAME",
    default="",
    help="Show only the best product of each value of NAME, as `group`.",
)
@click.option("--explain", is_flag=True, help="Tell of each hit how its score comes about.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False, writable=True), help="Write a result page."
)
@home_option
@json_option
def command(
    photo: Path,
    customer: str,
    limit: int,
    box: Box | None,
    filter_: str,
    facets: tuple[str, ...],
    group_by: str,
    explain: bool,
    html: Path | None,
    home: Home,
    as_json: bool,
) -> None:
    """Find the products in a photo, and the catalogue's products that are most like each."""
    with reading(home, customer) as client:
        request = SearchRequest(
            image=client.photo(photo),
            box=image_pb2.Box(**box._asdict()) if box else None,
            limit=limit,
            filter=filter_,
            explain=explain or html is not None,
            include_image_urls=html is not None,
            facets=facets,
            group_by=group_by,
        )
        response = client.call(client.visual_search.Search, request)
        if html:
            html.write_text(render(photo, response, customer, client.fetch), encoding="utf-8")
            tell(f"wrote {html}")
    if as_json:
        print_json(answer(response))
        return
    for number, object_hits in enumerate(response.objects, start=1):
        table_console.print(_title(number, object_hits), highlight=False, markup=False)
        table_console.print(_table(object_hits, explain))
        for facet in object_hits.facets:
            table_console.print(_facet_line(facet), highlight=False, markup=False)
    times = (f"{stage} {response.timings_ms[stage]:.0f}" for stage in STAGES if stage in response.timings_ms)
    tell(f"milliseconds: {', '.join(times)}")


def answer(response: SearchResponse) -> dict[str, Any]:
    """The JSON form."""
    return {
        "query_id": response.query_id,
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
    what = "whole image" if found.object.whole_image else f"{found.object.label} {found.object.score:.2f}"
    return f"object {number}: {what} at {where}"


def _table(found: ObjectHits, explain: bool) -> Table:
    calibrated = any(hit.HasField("probability") for hit in found.hits)
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
    if explain:
        table.add_column("reasons")
    for place, hit in enumerate(found.hits, start=1):
        reasons = "  ".join(f"{reason.term} {reason.value:+.3f}" for reason in hit.reasons)
        cells = [str(place), hit.product_id, f"{hit.score:.3f}"]
        if calibrated:
            cells.append(f"{hit.probability:.2f}" if hit.HasField("probability") else "")
        cells.append(hit.title)
        if grouped:
            cells.append(", ".join([*hit.stands_for[:3], *(["..."] if len(hit.stands_for) > 3 else [])]))
        table.add_row(*cells, *((reasons,) if explain else ()))
    if not found.hits:
        table.add_row("", "no hits", "", "")
    return table
