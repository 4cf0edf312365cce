"""The trainer as a child process: its output goes to a log and on, its end is ours to decide."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1  # from sys/prctl.h
PROGRESS_SECONDS = 15.0  # a progress bar redraws itself ten times a second; a log needs less
KEPT_LINES = 200


class TrainerProcess:
    """A started trainer. `pause` is how long a progress bar's next state is held back, seconds."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        tell: Callable[[str], None],
        *,
        pause: float = PROGRESS_SECONDS,
    ) -> None:
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._child = subprocess.Popen(  # noqa: S603 - the operator's own command
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its loaders end with it
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - it takes no lock
        )
        assert self._child.stdout is not None
        self._pump = threading.Thread(
            target=self._copy, args=(self._child.stdout, log, tell, pause), name="log", daemon=True
        )
        self._pump.start()

    def running(self) -> bool:
        """Is it alive?"""
        return self._child.poll() is None

    def ask_to_end(self) -> None:
        """SIGTERM to it, and to nothing else of its group: what it started is its own to end."""
        with contextlib.suppress(ProcessLookupError):
            self._child.terminate()

    def kill(self) -> None:
        """SIGKILL to it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def code(self) -> int:
        """How it ended, once it has: 0, its own code, or minus a signal. Its last words are logged then."""
        code = self._child.wait()
        self.kill()  # what it left behind would hold the pipe open
        self._pump.join(timeout=10)
        return code

    def _copy(self, output: IO[bytes], log: Path, tell: Callable[[str], None], pause: float) -> None:
        with log.open("a", encoding="utf-8") as file:
            for line in thinned(_lines(output), pause):
                self.last_lines.append(line)
                file.write(line + "\n")
                file.flush()
                tell(line)


def thinned(lines: Iterator[tuple[str, bool]], pause: float) -> Iterator[str]:
    """Every whole line; of a progress bar (lines that the next one overwrites) one each `pause` seconds."""
    shown = -pause
    for text, overwritten in lines:
        if not text.strip():
            continue
        if overwritten:
            if time.monotonic() - shown < pause:
                continue
            shown = time.monotonic()
        yield text


def _lines(output: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """(text, ended by a carriage return alone) as they come; undecodable bytes are replaced."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pending = ""
    while data := os.read(output.fileno(), 65536):
        pending += decoder.decode(data).replace("\r\n", "\n")
        *whole, pending = _split(pending)
        for text in whole:
            yield text[:-1], text[-1] == "\r"
    if pending:
        yield pending, False


def _split(text: str) -> list[str]:
    """Pieces that end in a newline or a carriage return, and the unfinished rest.

    >>> _split("a\\nb\\rc")
    ['a\\n', 'b\\r', 'c']
    """
    pieces, start = [], 0
    for position, character in enumerate(text):
        if character in "\r\n":
            pieces.append(text[start : position + 1])
            start = position + 1
    return [*pieces, text[start:]]


# Found before any fork: the child of a process with threads must load nothing, a lock may be held for ever.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """A trainer whose keeper was killed must not train on, unseen."""
    if _prctl:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
