"""Searches between two pages, in Redis for some minutes.

`magpie:{CUSTOMER}:page:TOKEN` is a Page. A token is 192 random bits and says nothing: an altered one, or
another customer's, names no key. Each page has a token of its own and is never changed, so that an answer
that got lost can be asked for again.
"""

from __future__ import annotations

import logging
import re
import secrets
from typing import Any

import redis

from magpie.errors import InvalidArgument, Unavailable
from magpie.store.redis_connection import redis_answers
from magpie.store.redis_keys import customer_key
from magpie.v1.page_pb2 import Page

TIME_TO_LIVE = 10 * 60  # seconds
MAX_BYTES = 256 * 1024  # of one page: thirty objects' vectors are 31 KB, the rest is what was shown
_TOKEN_BYTES = 24
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")

_log = logging.getLogger(__name__)


class Pages:
    """Over Redis or Valkey. `time_to_live` in seconds; pages above `max_bytes` are not kept."""

    def __init__(
        self, client: redis.Redis, time_to_live: int = TIME_TO_LIVE, max_bytes: int = MAX_BYTES
    ) -> None:
        self._redis: Any = client
        self._time_to_live = time_to_live
        self._max_bytes = max_bytes

    def keep(self, customer: str, page: Page) -> str:
        """A token for the page. Empty, and logged, if it is too large or Redis does not take it."""
        value = page.SerializeToString()
        if len(value) > self._max_bytes:
            _log.warning("page of %s not kept: it has %d bytes", page.query_id, len(value))
            return ""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        try:
            with redis_answers():
                self._redis.set(customer_key(customer, f"page:{token}"), value, ex=self._time_to_live)
        except Unavailable as error:
            _log.warning("page of %s not kept: %s", page.query_id, error)
            return ""
        return token

    def read(self, customer: str, token: str) -> Page:
        """The page. Raises InvalidArgument if the customer has no such token, or no more; Unavailable."""
        value = None
        if _TOKEN.fullmatch(token):
            with redis_answers():
                value = self._redis.get(customer_key(customer, f"page:{token}"))
        if value is None:
            raise InvalidArgument(
                "page_token",
                f"is unknown, or older than {self._time_to_live // 60} minutes: search again, without it",
            )
        return Page.FromString(value)
