"""The last results of each customer's recall probe: `magpie:{CUSTOMER}:probes` in Redis, newest first."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import redis

from magpie.store.redis_connection import redis_answers
from magpie.store.redis_keys import customer_key

KEPT = 500  # results of a customer
_EXPIRES_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class ProbeResult:
    """One search that was answered exactly as well."""

    at: float  # of the search, seconds since the epoch
    bundle: str  # whose vectors were compared
    hits: int
    wanted: int  # 0: nothing could be compared, because all of it changed meanwhile
    trace_id: str

    @property
    def recall(self) -> float | None:
        """At 10; None where nothing was compared."""
        return self.hits / self.wanted if self.wanted else None


class ProbeResults:
    """Every method raises Unavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def add(self, customer: str, result: ProbeResult) -> None:
        """The oldest goes when there are too many."""
        key = customer_key(customer, "probes")
        with redis_answers(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.lpush(key, json.dumps(asdict(result)))
            pipeline.ltrim(key, 0, KEPT - 1)
            pipeline.expire(key, _EXPIRES_SECONDS)
            pipeline.execute()

    def last(self, customer: str, count: int) -> list[ProbeResult]:
        """The newest, newest first."""
        with redis_answers():
            lines = self._redis.lrange(customer_key(customer, "probes"), 0, count - 1)
        return [ProbeResult(**json.loads(line)) for line in lines]
