"""What the kernel says this process takes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROLLUP = Path("/proc/self/smaps_rollup")


@dataclass(frozen=True)
class Resident:
    """Bytes in memory."""

    anonymous: int  # its own
    mapped: int  # pages of files, which the system takes away and reads again as it likes

    def __sub__(self, other: Resident) -> Resident:
        return Resident(self.anonymous - other.anonymous, self.mapped - other.mapped)


def resident() -> Resident:
    """Now. Where the system does not part them, all counts as its own."""
    gc.collect()
    return _resident()


def _resident() -> Resident:
    if not _ROLLUP.exists():
        return Resident(psutil.Process().memory_info().rss, 0)
    lines = (line.split() for line in _ROLLUP.read_text().splitlines()[1:])
    kilobytes = {words[0]: int(words[1]) for words in lines}
    anonymous = 1024 * kilobytes["Anonymous:"]
    return Resident(anonymous, 1024 * kilobytes["Rss:"] - anonymous)


class Peak:
    """The most that the process had of its own."""

    anonymous = 0


@contextmanager
def watched(seconds: float = 0.05) -> Iterator[Peak]:
    """Looks every so many seconds."""
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while True:
            peak.anonymous = max(peak.anonymous, _resident().anonymous)
            if over.wait(seconds):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
