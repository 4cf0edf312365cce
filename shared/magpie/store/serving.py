"""Which bundle answers each customer's searches: `magpie:{CUSTOMER}:serving`, written by change-overs alone.

A customer without the record never had a change-over: the first bundle of the process serves.
"""

from __future__ import annotations

import time
from typing import Any

import redis

from magpie.store.last_known import Known, LastKnown, known_since
from magpie.store.redis_connection import redis_answers
from magpie.store.redis_keys import customer_key

FRESH_SECONDS = 1.0  # for so long a process goes by what it read before


class Serving:
    """Reads the record. `first` is the bundle, `name@version`, of customers without one."""

    def __init__(self, client: redis.Redis, first: str) -> None:
        self._redis: Any = client
        self._first = first
        self._known: LastKnown[str, str] = LastKnown()  # customer -> bundle

    def current(self, customer: str) -> str:
        """The bundle that serves, at most FRESH_SECONDS late.

        While Redis does not answer, the one that it named within AWAY_SECONDS. Raises Unavailable without.
        """

        def ask() -> Known[str]:
            asked = time.monotonic()
            with redis_answers():
                found = self._redis.get(serving_key(customer))
            return known_since(asked, self._first if found is None else found.decode(), FRESH_SECONDS)

        return self._known.get(customer, ask)


def serving_key(customer: str) -> str:
    """Of the record."""
    return customer_key(customer, "serving")
