"""What a process goes by between two questions to Redis, and while Redis does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from magpie.errors import Unavailable

AWAY_SECONDS = 600.0  # for so long what was said last holds while nobody answers
ASK_AGAIN_SECONDS = 5.0  # and so long nobody asks again, since asking a host that is gone takes seconds

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Known(Generic[Value]):
    """Times are monotonic, in seconds."""

    value: Value
    confirmed: float  # when it was last said to be so
    ask_at: float  # until then it is taken for good


class LastKnown(Generic[Key, Value]):
    """Values by key, none of them older than it may be."""

    def __init__(self) -> None:
        self._known: dict[Key, Known[Value]] = {}

    def get(self, key: Key, ask: Callable[[], Known[Value]]) -> Value:
        """The value, asked for where it may have changed.

        If `ask` raises Unavailable, what was confirmed within AWAY_SECONDS; without that, Unavailable.
        """
        known = self._known.get(key)
        asked = time.monotonic()
        if known is not None and asked < known.ask_at:
            return known.value
        try:
            self._known[key] = known = ask()
        except Unavailable:
            now = time.monotonic()
            if known is None or now > known.confirmed + AWAY_SECONDS:
                raise
            self._known[key] = replace(known, ask_at=now + ASK_AGAIN_SECONDS)
        return known.value

    def last(self, key: Key) -> Value | None:
        """Without asking, however old; None: nothing is known."""
        known = self._known.get(key)
        return None if known is None else known.value

    def put(self, key: Key, known: Known[Value]) -> None:
        """Something is known from elsewhere."""
        self._known[key] = known

    def forget(self, key: Key) -> None:
        """It is so no more."""
        self._known.pop(key, None)


def known_since(asked: float, value: Value, seconds: float) -> Known[Value]:
    """An answer to a question of the time `asked`, taken for good for so many seconds since."""
    return Known(value, asked, asked + seconds)
