"""`magpie delete`"""

from __future__ import annotations

import click

from local.commands.options import customer_option, examples, home_option, json_option, print_json, tell
from local.customers import reading
from local.home import Home
from magpie.v1.catalog_pb2 import DeleteProductsRequest

BATCH = 100  # products a call


@click.command("delete", epilog=examples("magpie delete sku-1 sku-2 --customer my-shop"))
@click.argument("product_ids", nargs=-1, required=True, metavar="PRODUCT_ID...")
@customer_option
@home_option
@json_option
def command(product_ids: tuple[str, ...], customer: str, home: Home, as_json: bool) -> None:
    """Remove products with all their pictures. The next search does not find them."""
    ids = list(dict.fromkeys(product_ids))
    deleted: list[str] = []
    not_found: list[str] = []
    with reading(home, customer) as client:
        for start in range(0, len(ids), BATCH):
            request = DeleteProductsRequest(product_ids=ids[start : start + BATCH])
            answer = client.call(client.catalog.DeleteProducts, request)
            deleted += answer.deleted
            not_found += answer.not_found
    if as_json:
        print_json({"deleted": deleted, "not_found": not_found})
        return
    click.echo(f"{len(deleted)} deleted")
    if not_found:
        tell(f"not found: {', '.join(not_found)}")
