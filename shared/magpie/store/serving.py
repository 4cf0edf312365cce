"""Which bundle answers each customer's searches: `magpie:{CUSTOMER}:serving`, written by change-overs alone.

A customer without the record never had a change-over: the first bundle of the process serves.
"""

from __future__ import annotations

import time
from typing import Any

import redis

from magpie.store.redis_connection import redis_answers

FRESH_SECONDS = 1.0  # for so long a process goes by what it read before


class Serving:
    """Reads the record. `first` is the bundle, `name@version`, of customers without one."""

    def __init__(self, client: redis.Redis, first: str) -> None:
        self._redis: Any = client
        self._first = first
        self._fresh: dict[str, tuple[str, float]] = {}  # customer -> bundle, until when

    def current(self, customer: str) -> str:
        """The bundle that serves, at most FRESH_SECONDS late. Raises Unavailable."""
        bundle, until = self._fresh.get(customer, ("", 0.0))
        asked = time.monotonic()
        if asked < until:
            return bundle
        with redis_answers():
            found = self._redis.get(serving_key(customer))
        bundle = self._first if found is None else found.decode()
        self._fresh[customer] = (bundle, asked + FRESH_SECONDS)
        return bundle


def serving_key(customer: str) -> str:
    """Of the record."""
    return f"magpie:{{{customer}}}:serving"
