"""The ranking configs that a bundle brings: `customers/C/ranking.json`, fitted for customer C.

One is in force for its customer until the customer puts a config of its own. All are read when a process
starts, so that a bad file is found then and not at some customer's first search.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from google.protobuf import json_format

from magpie.errors import FailedPrecondition, InvalidArgument, MagpieError
from magpie.ranking.config import checksum, validate
from magpie.store.upload_key import CUSTOMER
from magpie.v1.ranking_config_pb2 import RankingConfig

FOLDER = "customers"
FILE = "ranking.json"


def path_of(bundle: Path, customer: str) -> Path:
    """Where a customer's config lies in a bundle's folder. Raises InvalidArgument for what is no name."""
    if not CUSTOMER.fullmatch(customer):
        raise InvalidArgument(
            "customer", f"{customer!r}: 1 to 63 of a-z, 0-9, `-`, `_`; the first a letter or digit"
        )
    return bundle / FOLDER / customer / FILE


def bundled_configs(bundle: Path, spaces: Collection[str], *, calibrated: bool) -> dict[str, RankingConfig]:
    """Customer -> config, validated, with the version that the bundle gave it.

    Raises FailedPrecondition naming the file that does not parse, does not fit the bundle's spaces, or was
    changed without its checksum.
    """
    configs = {}
    for path in sorted((bundle / FOLDER).glob(f"*/{FILE}")):
        customer = path.parent.name
        if not CUSTOMER.fullmatch(customer):
            raise FailedPrecondition(f"{path}: {customer!r} is no customer's name")
        configs[customer] = read(path, spaces, calibrated=calibrated)
    return configs


def read(path: Path, spaces: Collection[str], *, calibrated: bool) -> RankingConfig:
    """One file. Raises FailedPrecondition naming it."""
    try:
        config = json_format.Parse(path.read_text(), RankingConfig())
        checked = validate(config, spaces, calibrated=calibrated)
    except (OSError, UnicodeDecodeError, json_format.ParseError, MagpieError) as error:
        raise FailedPrecondition(f"ranking config {path}: {error}") from error
    if config.checksum != checksum(config):
        raise FailedPrecondition(
            f"ranking config {path} has checksum {config.checksum or 'none'}, "
            f"its rules have {checksum(config)}"
        )
    return checked


def write(
    bundle: Path, customer: str, config: RankingConfig, spaces: Collection[str], *, calibrated: bool
) -> RankingConfig:
    """Put a config in the place of the customer's; returns it with its version and checksum.

    The version is one above that of the config it replaces; one with equal rules is left alone. Raises what
    `validate` raises, InvalidArgument for what is no name, and FailedPrecondition if the old file is no good.
    """
    path = path_of(bundle, customer)
    new = validate(config, spaces, calibrated=calibrated)
    new.checksum = checksum(new)
    new.version = 1
    if path.exists():
        old = read(path, spaces, calibrated=calibrated)
        if checksum(old) == new.checksum:
            return old
        new.version = old.version + 1
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json_format.MessageToJson(new, preserving_proto_field_name=True) + "\n")
    fresh.replace(path)  # a writer that dies leaves the old one
    return new
