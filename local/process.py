"""A process of the local system: detached from the terminal, known by its pid and the time it started."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from local.home import Running

# The process table's start times come from clock ticks and the boot time, which may be corrected a little.
_SAME_START_SECONDS = 2.0


@dataclass(frozen=True)
class ProcessSpec:
    """How a process is started and how one sees that it works."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]  # added to ours
    probe: Callable[[], str]  # "" if it works, else what is wrong
    port: str = ""  # name of its main port


def start(spec: ProcessSpec, log: Path) -> Running:
    """Start it in a session of its own, its output appended to `log`."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            spec.command,
            env={**os.environ, **spec.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Running(child.pid, psutil.Process(child.pid).create_time())


def find(running: Running | None) -> psutil.Process | None:
    """The live process, or None if it ended; a later process with the same pid is not it."""
    if running is None:
        return None
    try:
        process = psutil.Process(running.pid)
        same = abs(process.create_time() - running.started) < _SAME_START_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def stop(running: Running | None, seconds: float) -> bool:
    """Ask it to end, and end it if it has not after `seconds`. True if it ended by itself, or had ended."""
    ask_to_end(running)
    if ended(running, seconds):
        return True
    process = find(running)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    ended(running, 10)
    return False


def ask_to_end(running: Running | None) -> None:
    """SIGTERM, where it lives."""
    process = find(running)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()


def ended(running: Running | None, seconds: float) -> bool:
    """Wait for its end. A zombie has ended: who reaps it, and when, is not our affair."""
    give_up = time.monotonic() + seconds
    while find(running) is not None:
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


def memory_mb(process: psutil.Process) -> float:
    """Resident memory, MiB."""
    return float(process.memory_info().rss) / 2**20


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
