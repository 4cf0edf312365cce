"""`magpie search`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from local.client import Client
from local.commands.hits import (
    all_pages_option,
    explain_option,
    facet_option,
    filter_option,
    group_by_option,
    limit_option,
    merged,
    show,
    weight_option,
)
from local.commands.options import customer_option, examples, home_option, json_option, tell
from local.customers import reading
from local.home import Home
from local.result_page import render
from magpie.errors import InvalidArgument
from magpie.geometry import Box
from magpie.v1 import image_pb2
from magpie.v1.visual_search_pb2 import SearchRequest


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
        "magpie search photo.jpg --customer my-shop --box 0.1,0.2,0.6,0.9 --box 0.5,0.1,0.9,0.8",
        "magpie search photo.jpg --customer my-shop --facet brand --facet price --group-by group",
        "magpie search photo.jpg --customer my-shop --html page.html",
        "magpie search photo.jpg --customer my-shop --all-pages --json",
        "magpie search --customer my-shop --page TOKEN",
    ),
)
@click.argument("photo", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@customer_option
@limit_option
@click.option(
    "--box",
    "boxes",
    type=BoxType(),
    multiple=True,
    help="Search this region alone, fractions of the width and height; again for further regions.",
)
@filter_option
@facet_option
@group_by_option
@weight_option
@explain_option
@click.option("--page", metavar="TOKEN", help="The next page of an earlier answer; no PHOTO and no options.")
@all_pages_option
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False, writable=True), help="Write a result page."
)
@home_option
@json_option
def command(
    photo: Path | None,
    customer: str,
    limit: int | None,
    boxes: tuple[Box, ...],
    filter_: str,
    weights: tuple[tuple[str, float], ...],
    facets: tuple[str, ...],
    group_by: str,
    explain: bool,
    page: str | None,
    all_pages: bool,
    html: Path | None,
    home: Home,
    as_json: bool,
) -> None:
    """Find the products in a photo, and the catalogue's products that are most like each."""
    if page is not None and any((photo, limit, boxes, filter_, facets, group_by, weights, explain, html)):
        raise click.UsageError("--page goes on as the search began: leave out PHOTO and the other options")
    if page is None and photo is None:
        raise click.UsageError("PHOTO is missing, or --page TOKEN")
    with reading(home, customer) as client:
        request = SearchRequest(
            image=_image(client, photo),
            boxes=[image_pb2.Box(**box._asdict()) for box in boxes],
            limit=limit or 0,
            filter=filter_,
            weights=dict(weights),
            explain=explain or html is not None,
            include_image_urls=html is not None,
            facets=facets,
            group_by=group_by,
            page_token=page or "",
        )
        response = merged(client.pages(request, all_pages=all_pages))
        if html and photo:
            html.write_text(render(photo, response, customer, client.fetch), encoding="utf-8")
            tell(f"wrote {html}")
    show(response, customer, as_json=as_json)


def _image(client: Client, photo: Path | None) -> image_pb2.Image | None:
    return client.photo(photo) if photo else None
