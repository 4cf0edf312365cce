"""`trial`, kept to one core from before the import of libraries that start a thread for each core."""

from __future__ import annotations

import os

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

from tests.bench.index.trial import main

if __name__ == "__main__":
    main()
