"""Which bundle answers each customer's searches: `magpie:{CUSTOMER}:serving`, written by change-overs alone.

A customer without the record never had a change-over: the first bundle of the process serves.
"""

from __future__ import annotations

import time
from typing import Any

import redis

from magpie.errors import Unavailable
from magpie.store.redis_connection import ASK_AGAIN_SECONDS, AWAY_SECONDS, redis_answers
from magpie.store.redis_keys import customer_key

FRESH_SECONDS = 1.0  # for so long a process goes by what it read before


class Serving:
    """Reads the record. `first` is the bundle, `name@version`, of customers without one."""

    def __init__(self, client: redis.Redis, first: str) -> None:
        self._redis: Any = client
        self._first = first
        self._known: dict[str, tuple[str, float, float]] = {}  # customer -> bundle, confirmed, ask again at

    def current(self, customer: str) -> str:
        """The bundle that serves, at most FRESH_SECONDS late.

        While Redis does not answer, the one that it named within AWAY_SECONDS. Raises Unavailable without.
        """
        bundle, confirmed, ask_at = self._known.get(customer, ("", float("-inf"), 0.0))
        asked = time.monotonic()
        if asked < ask_at:
            return bundle
        try:
            with redis_answers():
                found = self._redis.get(serving_key(customer))
        except Unavailable:
            if asked > confirmed + AWAY_SECONDS:
                raise
            self._known[customer] = (bundle, confirmed, time.monotonic() + ASK_AGAIN_SECONDS)
            return bundle
        bundle = self._first if found is None else found.decode()
        self._known[customer] = (bundle, asked, asked + FRESH_SECONDS)
        return bundle


def serving_key(customer: str) -> str:
    """Of the record."""
    return customer_key(customer, "serving")
