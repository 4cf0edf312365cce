"""The Lua scripts that write a customer's catalogue, each one atomic step.

`lua/prelude.lua` and `lua/changeover.lua` stand before every one of them, and all take the same keys, in the
order in which the prelude unpacks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import redis

from magpie.store.redis_connection import redis_answers
from magpie.store.redis_keys import customer_key

LUA = Path(__file__).with_name("lua")
_PRELUDES = ("prelude", "changeover")
_KEYS = (
    "products", "listed", "images", "unfinished", "bundles", "changes", "fingerprints", "typed", "attributes",
)  # fmt: skip


class WritingScripts:
    """Those of the given names."""

    def __init__(self, client: redis.Redis, names: Iterable[str]) -> None:
        prelude = "".join((LUA / f"{name}.lua").read_text() for name in _PRELUDES)
        self._scripts = {
            name: client.register_script(prelude + (LUA / f"{name}.lua").read_text()) for name in names
        }

    def run(self, name: str, customer: str, arguments: Sequence[Any]) -> Any:
        """What the script returns. Raises Unavailable while Redis does not answer."""
        keys = [customer_key(customer, key) for key in _KEYS]
        with redis_answers():
            return self._scripts[name](keys, [customer_key(customer, "objects:"), *arguments])
