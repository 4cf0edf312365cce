"""How long a training took: wall time of all its sittings, kept in the run folder."""

from __future__ import annotations

import json
import time
from pathlib import Path

FILE = "time.json"


class TrainingTime:
    """Counts from now on, and on from what the folder says where a run is resumed.

    What a killed sitting did after its last `save` is not counted, nor is it kept by the checkpoint.
    """

    def __init__(self, run_dir: Path, device: str, *, resume: bool) -> None:
        self._path = run_dir / FILE
        self._device = device
        self._before = (minutes(run_dir) or 0.0) if resume else 0.0
        self._began = time.monotonic()

    def save(self) -> None:
        """Write what has passed so far."""
        passed = self._before + (time.monotonic() - self._began) / 60
        self._path.write_text(json.dumps({"minutes": round(passed, 3), "device": self._device}) + "\n")


def minutes(run_dir: Path) -> float | None:
    """Of a run so far; None where it was not kept."""
    path = run_dir / FILE
    return float(json.loads(path.read_text())["minutes"]) if path.is_file() else None
