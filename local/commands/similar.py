"""`magpie similar`"""

from __future__ import annotations

import click

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
from local.commands.options import customer_option, examples, home_option, json_option
from local.customers import reading
from local.home import Home
from magpie.v1.visual_search_pb2 import SearchRequest


@click.command(
    "similar",
    epilog=examples(
        "magpie similar product-17 --customer my-shop",
        "magpie similar product-17 --customer my-shop --weight similar=1 -k 5",
        """magpie similar product-17 --customer my-shop --filter "stock > 0" --explain""",
        "magpie similar product-17 --customer my-shop --all-pages --json",
    ),
)
@click.argument("product_id")
@customer_option
@limit_option
@filter_option
@facet_option
@group_by_option
@weight_option
@explain_option
@all_pages_option
@home_option
@json_option
def command(
    product_id: str,
    customer: str,
    limit: int | None,
    filter_: str,
    facets: tuple[str, ...],
    group_by: str,
    weights: tuple[tuple[str, float], ...],
    explain: bool,
    all_pages: bool,
    home: Home,
    as_json: bool,
) -> None:
    """Find the products that look most like one of the catalogue, by its first picture."""
    with reading(home, customer) as client:
        request = SearchRequest(
            product_id=product_id,
            limit=limit or 0,
            filter=filter_,
            facets=facets,
            group_by=group_by,
            weights=dict(weights),
            explain=explain,
        )
        response = merged(client.pages(request, all_pages=all_pages))
    show(response, customer, as_json=as_json)
