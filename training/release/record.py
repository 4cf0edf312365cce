"""`release.json`: what a bundle was compared with, how that went, and the SHA-256 of all its files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magpie.errors import FailedPrecondition
from magpie.vision.bundle import Bundle

FILE = "release.json"
_FORMAT = 1
_PART = ".part-"


@dataclass(frozen=True)
class ReleaseRecord:
    """One release."""

    bundle: str  # name@version
    released_at: str  # ISO 8601, UTC
    against: str  # name@version of what it replaced, or `imagenet`
    suite: Mapping[str, str]  # `file`, `sha256`
    comparison: Mapping[str, Any]  # every protected set's figures and verdicts; A is `against`
    margin: float  # fall of a figure that few queries cannot excuse
    warnings: tuple[str, ...]
    allowed_worse: Mapping[str, Any] | None  # `reason`, `losses`
    skipped_sets: tuple[str, ...]
    dropped_customers: tuple[str, ...]
    earlier: tuple[str, ...]  # ids of the bundles that were in this place before, oldest first
    files: Mapping[str, str]  # path in the bundle -> SHA-256; all but this file
    format: int = _FORMAT

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        write_whole(folder / FILE, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> ReleaseRecord | None:
        """None if the bundle was never released. Raises FailedPrecondition if the record is damaged."""
        path = folder / FILE
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text())
            for name in ("warnings", "skipped_sets", "dropped_customers", "earlier"):
                values[name] = tuple(values[name])
            record = cls(**values)
            digests = all(map(_is_digest, record.files.values()))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise FailedPrecondition(f"release record {path}: {error!r}") from error
        if record.format != _FORMAT or not digests:
            raise FailedPrecondition(
                f"release record {path}: is of format {record.format}, or lacks checksums"
            )
        return record


def checksums(folder: Path) -> dict[str, str]:
    """Path relative to `folder` -> SHA-256 of each file, FILE itself aside.

    Raises FailedPrecondition for what is neither a file nor a folder: a link may change behind our back.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise FailedPrecondition(f"{path} is no plain file: copy what it points to")
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != FILE:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def verify_release(folder: Path) -> ReleaseRecord:
    """The record of a released bundle, every file checked against it.

    Raises FailedPrecondition naming each file that is missing, changed or new since the release.
    """
    record = ReleaseRecord.load(folder)
    if record is None:
        raise FailedPrecondition(
            f"{folder} has no {FILE}: it was never released, see `magpie release --help`"
        )
    now = checksums(folder)
    faults = [f"{name} is missing" for name in sorted(set(record.files) - set(now))]
    faults += [f"{name} is not of the release" for name in sorted(set(now) - set(record.files))]
    faults += [
        f"{name} was changed" for name in sorted(now) if record.files.get(name, now[name]) != now[name]
    ]
    identity = Bundle.load(folder).id if not faults else record.bundle
    if identity != record.bundle:
        faults.append(f"its manifest says {identity}, its release {record.bundle}")
    if faults:
        raise FailedPrecondition(f"{folder} is not as it was released: {'; '.join(faults)}")
    return record


def check_unchanged(folder: Path) -> None:
    """As `verify_release` where there is a record; of a bundle that was never released, its models alone.

    Raises FailedPrecondition.
    """
    if ReleaseRecord.load(folder) is not None:
        verify_release(folder)
        return
    bundle = Bundle.load(folder)
    for card in (bundle.detector_card, bundle.embedder_card):
        card.verified_model(folder)


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step, so that a kill leaves the old one or the new one. Raises OSError."""
    part = path.with_name(f"{_PART}{path.name}")
    with part.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def drop_parts(folder: Path) -> None:
    """What a killed `write_whole` left."""
    for path in folder.glob(f"{_PART}*"):
        path.unlink()


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64
