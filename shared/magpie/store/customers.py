"""Whose API key is it? Redis knows the keys by their SHA-256 alone."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

import redis

from magpie.errors import InvalidArgument, NotFound
from magpie.store.last_known import Known, LastKnown, known_since
from magpie.store.redis_connection import redis_answers
from magpie.store.upload_key import CUSTOMER

TRUSTED_SECONDS = 5.0  # for so long a process takes a key for good without asking again

# Upper case, so that no customer's keys have this hash tag.
_KEYS = "magpie:{CUSTOMERS}:keys"  # hash: SHA-256 of a key -> customer
_NAMES = "magpie:{CUSTOMERS}:names"  # set of customers


class Customers:
    """The customers and their API keys. Every method raises Unavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client
        self._known: LastKnown[str, str] = LastKnown()  # SHA-256 of a key -> customer

    def create(self, customer: str) -> str:
        """Make a customer, or one more key for one who exists. The key is shown here and never again."""
        if not CUSTOMER.fullmatch(customer):
            raise InvalidArgument(
                "customer",
                f"must be 1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit; got {customer!r}",
            )
        key = f"mk_{secrets.token_urlsafe(24)}"  # 32 characters after the prefix
        with redis_answers(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.sadd(_NAMES, customer)
            pipeline.hset(_KEYS, _digest(key), customer)
            pipeline.execute()
        return key

    def customer_of(self, key: str) -> str | None:
        """Whose key it is. A revoked key can hold for TRUSTED_SECONDS in other processes.

        While Redis does not answer, a key that it confirmed within AWAY_SECONDS is good.
        """
        digest = _digest(key)

        def ask() -> Known[str]:
            with redis_answers():
                found = self._redis.hget(_KEYS, digest)
            if found is None:
                raise NotFound("there is no such key")
            return known_since(time.monotonic(), found.decode(), TRUSTED_SECONDS)

        try:
            return self._known.get(digest, ask)
        except NotFound:
            self._known.forget(digest)
            return None

    def revoke(self, key: str) -> bool:
        """End a key; the customer stays. Returns whether there was such a key."""
        digest = _digest(key)
        with redis_answers():
            removed = self._redis.hdel(_KEYS, digest)
        self._known.forget(digest)
        return bool(removed)

    def exists(self, customer: str) -> bool:
        """Whether a customer was made."""
        with redis_answers():
            return bool(self._redis.sismember(_NAMES, customer))

    def customers(self) -> list[str]:
        """All of them, sorted."""
        with redis_answers():
            return sorted(name.decode() for name in self._redis.smembers(_NAMES))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
