"""Processes are known by pid and start time, and outlive their parent."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from local.process import ProcessSpec, find, memory_mb, start, stop, tail

TALK = "import os, time; print(os.environ['WORD'], flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {TALK}"


def spec(code: str) -> ProcessSpec:
    return ProcessSpec("talker", [sys.executable, "-c", code], {"WORD": "hello"}, lambda: "")


def wait_for_output(log: Path) -> None:
    while not log.exists() or not log.read_text().strip():
        os.sched_yield()


def test_start_find_stop(tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = start(spec(TALK), log)
    wait_for_output(log)
    process = find(running)
    assert process is not None
    assert memory_mb(process) > 1
    assert os.getsid(running.pid) == running.pid  # not in our terminal's session
    assert tail(log) == "hello"
    assert stop(running, seconds=20)
    assert find(running) is None
    assert stop(running, seconds=0)  # again: it has ended already


def test_what_does_not_end_by_itself_is_ended(tmp_path: Path) -> None:
    running = start(spec(STUBBORN), tmp_path / "log")
    wait_for_output(tmp_path / "log")
    assert not stop(running, seconds=0.2)
    assert find(running) is None


def test_a_killed_child_that_nobody_waited_for_is_not_alive(tmp_path: Path) -> None:
    running = start(spec(TALK), tmp_path / "log")
    os.kill(running.pid, signal.SIGKILL)
    while (process := find(running)) is not None:  # until the kernel has done it
        assert process.pid == running.pid
    assert find(running) is None


def test_a_later_process_with_the_same_pid_is_another(tmp_path: Path) -> None:
    running = start(spec(TALK), tmp_path / "log")
    earlier = replace(running, started=running.started - 3600)
    assert find(earlier) is None
    assert stop(earlier, seconds=0)
    assert find(running) is not None  # and was left alone
    stop(running, seconds=20)
