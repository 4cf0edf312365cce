"""`magpie key`"""

from __future__ import annotations

import click

from local.commands.options import customer_argument, examples, home_option, json_option, print_json
from local.customers import key_of
from local.home import Home


@click.command(
    "key",
    epilog=examples(
        "magpie key my-shop",
        'curl -H "x-api-key: $(magpie key my-shop)" -H "content-type: application/json" ...',
    ),
)
@customer_argument
@home_option
@json_option
def command(customer: str, home: Home, as_json: bool) -> None:
    """Print a customer's API key, for calls by other programs. A customer who is not known yet is made."""
    key = key_of(home, customer)
    if as_json:
        print_json({"customer": customer, "key": key})
    else:
        click.echo(key)
