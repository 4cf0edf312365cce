"""Redis, or Valkey: the connection, and the one place where its errors become Magpie's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis import exceptions

from magpie.errors import Unavailable

_SCANNED = 500  # fields of a hash a call

# The server is away, starting, failing over or full: the same command can succeed later.
_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
)


def connect(url: str) -> redis.Redis:
    """A client with a pool of its own. Nothing is sent before the first command."""
    return redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=10)


@contextmanager
def redis_answers() -> Iterator[None]:
    """Raises Unavailable in place of Redis's errors that a retry can cure."""
    try:
        yield
    except _AWAY as error:
        raise Unavailable(f"Redis does not answer, try again in some seconds: {error}") from error


def hash_pages(client: redis.Redis, key: str) -> Iterator[dict[bytes, bytes]]:
    """All of a hash, in pages; a field may come twice. Raises Unavailable."""
    answers: Any = client  # its types allow texts, too: here all answers are bytes
    cursor = 0
    while True:
        with redis_answers():
            cursor, page = answers.hscan(key, cursor, count=_SCANNED)
        if page:
            yield page
        if cursor == 0:
            return
