"""`magpie config get` and `magpie config put`"""

from __future__ import annotations

from typing import IO

import click
from google.protobuf import json_format

from local.commands.options import customer_option, examples, home_option, json_option, tell
from local.customers import reading, writing
from local.home import Home
from magpie.errors import InvalidArgument
from magpie.v1.ranking_config_pb2 import GetRankingConfigRequest, PutRankingConfigRequest, RankingConfig


@click.group(
    "config",
    epilog=examples(
        "magpie config get --customer my-shop > ranking.json",
        "magpie config put ranking.json --customer my-shop",
        "magpie config get --version 3 --customer my-shop | magpie config put - --customer my-shop",
    ),
)
def command() -> None:
    """Read or replace a customer's ranking config, as JSON."""


@command.command("get", epilog=examples("magpie config get --customer my-shop > ranking.json"))
@click.option("--version", type=click.IntRange(min=1), help="An earlier one; without it the one in force.")
@customer_option
@home_option
@json_option
def get(version: int | None, customer: str, home: Home, as_json: bool) -> None:  # noqa: ARG001 - it is JSON anyhow
    """Print the ranking config in force."""
    with reading(home, customer) as client:
        request = GetRankingConfigRequest(version=version or 0)
        answer = client.call(client.ranking_configs.GetRankingConfig, request)
    click.echo(_json(answer.config))


@command.command(
    "put",
    epilog=examples(
        "magpie config put ranking.json --customer my-shop",
        """echo '{"min_score": 0.3, "group_variants": true}' | magpie config put - --customer my-shop""",
    ),
)
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option(
    "--expected-version", type=click.IntRange(min=0), help="Put it only if this is the version in force."
)
@customer_option
@home_option
@json_option
def put(file: IO[str], expected_version: int | None, customer: str, home: Home, as_json: bool) -> None:
    """Check a ranking config and put it in force, from the next search on. FILE: - is standard input."""
    try:
        config = json_format.Parse(file.read(), RankingConfig())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidArgument(file.name, f"is no ranking config: {error}") from error
    with writing(home, customer) as client:
        request = PutRankingConfigRequest(config=config, expected_version=expected_version)
        answer = client.call(client.ranking_configs.PutRankingConfig, request)
    if as_json:
        click.echo(_json(answer.config))
    else:
        tell(f"version {answer.config.version} is in force for {customer}")


def _json(config: RankingConfig) -> str:
    return json_format.MessageToJson(
        config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
