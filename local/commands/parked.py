"""`magpie parked`"""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table

from local.commands.options import examples, home_option, json_option, print_json, table_console, tell
from local.home import Home
from local.parking import parking

of_customer = click.option("--customer", default="", metavar="C", help="Of this customer alone.")
of_product = click.option("--product", "product_id", default="", metavar="ID", help="Of this product alone.")


@click.command("parked", epilog=examples("magpie parked", "magpie parked --customer my-shop"))
@of_customer
@of_product
@home_option
@json_option
def command(customer: str, product_id: str, home: Home, as_json: bool) -> None:
    """Events of pictures that could not be indexed, and why. `magpie replay` sends them again."""
    events = parking(home).parked(customer, product_id)
    if as_json:
        print_json({"parked": [asdict(event) for event in events]})
        return
    if not events:
        tell("nothing is parked")
        return
    table = Table("customer", "product", "image", "stage", "reason", box=None)
    for event in events:
        table.add_row(event.customer, event.product_id, event.sha256[:12], event.stage, event.reason)
    table_console.print(table)
