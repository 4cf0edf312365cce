"""A recipe's table as TOML text, for a machine that has not got the files it was merged from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml(table: Mapping[str, Any]) -> str:
    """TOML of nested tables, lists, strings, numbers and truth values; tables in lists are written inline.

    >>> print(toml({"seed": 3, "batch": {"products": 8}}), end="")
    seed = 3
    batch = {products = 8}
    """
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML, too
    if isinstance(value, int):
        return str(value)
    return _string(str(value))


def _key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isascii() and bare.isalnum() else _string(key)


def _string(text: str) -> str:
    """A JSON string is a basic TOML string, but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
