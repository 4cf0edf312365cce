"""Whose API key is it? Redis knows the keys by their SHA-256 alone."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, replace
from typing import Any

import redis

from magpie.errors import InvalidArgument, Unavailable
from magpie.store.redis_connection import ASK_AGAIN_SECONDS, AWAY_SECONDS, redis_answers
from magpie.store.upload_key import CUSTOMER

TRUSTED_SECONDS = 5.0  # for so long a process takes a key for good without asking again

# Upper case, so that no customer's keys have this hash tag.
_KEYS = "magpie:{CUSTOMERS}:keys"  # hash: SHA-256 of a key -> customer
_NAMES = "magpie:{CUSTOMERS}:names"  # set of customers


@dataclass(frozen=True)
class _Known:
    """A key as a process knows it. Times are monotonic, in seconds."""

    customer: str
    confirmed: float  # when Redis last said so
    ask_at: float  # until then it is taken for good


class Customers:
    """The customers and their API keys. Every method raises Unavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client
        self._known: dict[str, _Known] = {}  # by the SHA-256 of a key

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
        known = self._known.get(digest)
        if known is not None and time.monotonic() < known.ask_at:
            return known.customer
        try:
            with redis_answers():
                found = self._redis.hget(_KEYS, digest)
        except Unavailable:
            now = time.monotonic()
            if known is None or now > known.confirmed + AWAY_SECONDS:
                raise
            self._known[digest] = replace(known, ask_at=now + ASK_AGAIN_SECONDS)
            return known.customer
        if found is None:
            self._known.pop(digest, None)
            return None
        now = time.monotonic()
        self._known[digest] = _Known(found.decode(), now, now + TRUSTED_SECONDS)
        return str(found.decode())

    def revoke(self, key: str) -> bool:
        """End a key; the customer stays. Returns whether there was such a key."""
        digest = _digest(key)
        with redis_answers():
            removed = self._redis.hdel(_KEYS, digest)
        self._known.pop(digest, None)
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
