"""How a job ended, as `done.json` or `failed.json` in its run folder: what a person reads first."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

DONE, FAILED = "done.json", "failed.json"
LOG = "log.txt"
_TAIL_LINES = 20


def done(seconds: float, files: dict[str, int]) -> bytes:
    """The run is complete. `files` are what it left: name -> bytes."""
    return _json({"finished": _now(), "seconds": round(seconds, 1), "files": files, **_batch()})


def failed(reason: str, log_tail: Sequence[str] = ()) -> bytes:
    """The run cannot go on without a change."""
    return _json({"failed": _now(), "reason": reason, "log": LOG, "last_lines": list(log_tail), **_batch()})


def reason_of(code: int, lines: Sequence[str]) -> str:
    """Why a trainer ended with `code`, from the last lines it wrote.

    Magpie's own errors are lines that begin with `error:`; of a traceback the last line says it.
    """
    if code == -signal.SIGKILL:
        return "the trainer was killed (signal 9), most likely for want of memory: make the batch smaller"
    if code < 0:
        return f"the trainer died of {signal.Signals(-code).name}"
    said = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    spoken = [line.strip() for line in lines if line.strip()]
    return (said or spoken or [f"the trainer ended with code {code} and said nothing"])[-1]


def tail(lines: Sequence[str]) -> list[str]:
    """Those lines that a report shows."""
    return list(lines[-_TAIL_LINES:])


def _batch() -> dict[str, Any]:
    """Which job and attempt this is, where AWS Batch runs it."""
    names = {"job": "AWS_BATCH_JOB_ID", "attempt": "AWS_BATCH_JOB_ATTEMPT"}
    return {key: os.environ[name] for key, name in names.items() if name in os.environ}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False).encode() + b"\n"
