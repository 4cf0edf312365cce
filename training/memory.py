"""How the process keeps its memory."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Make glibc reuse large blocks: to hand them back and fault them in again costs a quarter of a step."""
    if sys.platform == "linux":
        mmap_max, trim_threshold = -4, -1  # from malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
