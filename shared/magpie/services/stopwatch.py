"""How long each stage took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Milliseconds of each stage and of the whole; a stage that runs again adds to its time."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens within."""
        start = time.perf_counter()
        yield
        self._stages[name] = self._stages.get(name, 0.0) + (time.perf_counter() - start) * 1000

    def milliseconds(self) -> dict[str, float]:
        """Stage -> milliseconds so far, and `total`."""
        return {**self._stages, "total": (time.perf_counter() - self._start) * 1000}
