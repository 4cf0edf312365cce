"""Room on the local disk for snapshots: it is a cache of what lies on S3, and those opened longest ago go."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """On the disk that `folder` lies on."""
    return shutil.disk_usage(folder).free


def make_room(folder: Path, wanted: int, free: Callable[[Path], int] = free_bytes) -> None:
    """Remove snapshots, the ones with the oldest times first, until `wanted` bytes are free or none is left.

    `folder` has those of all customers. A process that has mapped one goes on reading it, and the disk has
    its room back when the last of them lets go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if free(folder) >= wanted:
        return
    for path in sorted(folder.glob("*/*/*.snapshot"), key=_time_of):
        path.unlink(missing_ok=True)
        if free(folder) >= wanted:
            return


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
