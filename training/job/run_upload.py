"""The run folder's copy in S3, kept up while the trainer writes.

What S3 holds must be a state to resume from, whenever this machine dies. So each file is copied first, which
takes milliseconds, and the copy goes up: an object changes as a whole, and never to half a file. The
checkpoint is copied first and goes up last: the metrics in S3 are then never older than the checkpoint, and a
resumed run drops those that are newer.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from training.job.s3_folder import S3Folder, files_of, upload

CHECKPOINT = "checkpoint.pt"  # what the trainer resumes from


class RunUpload:
    """Uploads what has changed in `run_dir` since the last time. `staging` is a folder for the copies."""

    def __init__(self, s3: Any, folder: S3Folder, run_dir: Path, staging: Path) -> None:
        self._s3, self._folder, self._run_dir, self._staging = s3, folder, run_dir, staging
        self._uploaded = {name: _version((run_dir / name).stat()) for name in files_of(run_dir)}

    def now(self) -> list[str]:
        """Upload; the names that went up. Raises Magpie's errors, and OSError without room for copies."""
        names = sorted(files_of(self._run_dir), key=lambda name: name != CHECKPOINT)
        shutil.rmtree(self._staging, ignore_errors=True)
        copies = {}
        for name in names:
            version = self._copy_if_changed(name)
            if version is not None:
                copies[name] = version
        for name, version in reversed(copies.items()):
            upload(self._s3, self._staging / name, self._folder, name)
            self._uploaded[name] = version
        shutil.rmtree(self._staging, ignore_errors=True)
        return list(copies)

    def _copy_if_changed(self, name: str) -> tuple[int, int] | None:
        copy = self._staging / name
        try:
            with (self._run_dir / name).open("rb") as source:
                # Of the open file: a checkpoint that is replaced meanwhile is copied whole, as it was.
                version = _version(os.fstat(source.fileno()))
                if self._uploaded.get(name) == version:
                    return None
                copy.parent.mkdir(parents=True, exist_ok=True)
                with copy.open("wb") as target:
                    shutil.copyfileobj(source, target, 2**20)
        except FileNotFoundError:  # gone since it was listed
            return None
        return version


def _version(stat: os.stat_result) -> tuple[int, int]:
    """What differs after any write: the time of the last one, and the size."""
    return stat.st_mtime_ns, stat.st_size
