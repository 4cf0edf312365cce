"""A local system for a bench, under .bench/home: started before, stopped after, empty at the start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.home import Home
from local.system import System

FOLDER = Path(".bench/home")


@contextmanager
def local_system() -> Iterator[tuple[Home, System]]:
    """The system's settings are in this process's environment meanwhile."""
    home = Home(FOLDER)
    system = System(home)
    system.down(lambda _: None)
    shutil.rmtree(FOLDER, ignore_errors=True)
    system.up({}, "", lambda _: None)
    os.environ.update(system.running().environment())
    try:
        yield home, system
    finally:
        system.down(lambda _: None)


def memory(system: System) -> dict[str, float]:
    """Process -> resident memory, MB."""
    return {status.name: round(status.memory_mb, 1) for status in system.status() if status.memory_mb}
