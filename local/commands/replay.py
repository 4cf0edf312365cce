"""`magpie replay`"""

from __future__ import annotations

from dataclasses import asdict

import click

from local.commands.options import examples, home_option, json_option, print_json, tell
from local.commands.parked import of_customer, of_product
from local.home import Home
from local.parking import parking


@click.command("replay", epilog=examples("magpie replay", "magpie replay --customer my-shop --product sku-1"))
@of_customer
@of_product
@home_option
@json_option
def command(customer: str, product_id: str, home: Home, as_json: bool) -> None:
    """Send parked events to their queues again, after what kept them from the index was mended."""
    sent = parking(home).replay(customer, product_id)
    if as_json:
        print_json({"replayed": [asdict(event) for event in sent]})
    else:
        tell(f"{len(sent)} sent again")
