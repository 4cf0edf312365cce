"""`magpie attributes`"""

from __future__ import annotations

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
from magpie.v1.catalog_pb2 import Attribute, GetAttributesRequest


@click.command(
    "attributes",
    epilog=examples("magpie attributes --customer my-shop", "magpie attributes --customer my-shop --json"),
)
@customer_option
@home_option
@json_option
def command(customer: str, home: Home, as_json: bool) -> None:
    """What filters, facets and --group-by can name, of which type, and how many products have it."""
    with reading(home, customer) as client:
        answer = client.call(client.catalog.GetAttributes, GetAttributesRequest())
    if as_json:
        print_json(
            {
                "attributes": [
                    {
                        "name": attribute.name,
                        "types": [
                            {"type": _type(count), "products": count.products} for count in attribute.types
                        ],
                    }
                    for attribute in answer.attributes
                ],
                "products": answer.products,
                "unlearned": answer.unlearned,
            }
        )
        return
    table = Table("name", "type", "products", box=None)
    table.columns[-1].justify = "right"
    for attribute in answer.attributes:
        for count in attribute.types:
            table.add_row(attribute.name, _type(count), str(count.products))
    table_console.print(table)
    tell(f"{answer.products} products")
    if answer.unlearned:
        tell(f"of {answer.unlearned} the attributes are not known yet: run `magpie index` again")


def _type(count: Attribute.TypeCount) -> str:
    return Attribute.Type.Name(count.type).removeprefix("TYPE_").lower()
