"""Who compacts what just now, so that two do not do the same work.

Nothing but work is saved by it: the swap of the pointer would turn the second one away. A lease of one who
was killed ends by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis
from redis.exceptions import LockError, RedisError

from magpie.store.redis_connection import redis_answers
from magpie.store.redis_keys import customer_key


class CompactionLeases:
    """Raises Unavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    @contextmanager
    def take(self, customer: str, bundle: str, seconds: float) -> Iterator[bool]:
        """Hold one customer's lease of one bundle for at most so long. False: somebody else has it."""
        name = customer_key(customer, f"compacting:{bundle}")
        lease = self._redis.lock(name, timeout=seconds, blocking=False, thread_local=False)
        with redis_answers():
            taken = lease.acquire()
        try:
            yield taken
        finally:
            if taken:
                with suppress(LockError, RedisError):  # it has ended, or will
                    lease.release()
