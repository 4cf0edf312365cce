"""Ids of bundles: `name@version` stands beside every vector, so no two bundles of a place may share one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from magpie.errors import FailedPrecondition
from magpie.vision.bundle import Bundle
from training.release.install import previous_of
from training.release.record import ReleaseRecord

VERSION = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")


def ids_of(current: Path) -> tuple[str, ...]:
    """Every id that the place has had, what a roll-back put aside included; the present one last.

    Raises FailedPrecondition if the bundle or a record cannot be read.
    """
    ids: list[str] = []
    previous = previous_of(current)
    for folder in (previous, current):
        release = ReleaseRecord.load(folder) if folder.is_dir() else None
        ids += release.earlier if release else ()
    if previous.is_dir():
        ids.append(Bundle.load(previous).id)
    present = Bundle.load(current).id
    return (*dict.fromkeys(id_ for id_ in ids if id_ != present), present)


def check_identity(identity: str, earlier: Sequence[str], current: Path) -> None:
    """Raises FailedPrecondition, with a version that is free, if the place has had the id."""
    if identity not in earlier:
        return
    when = "is" if identity == earlier[-1] else "was"
    raise FailedPrecondition(
        f"{identity} {when} in place at {current}, and vectors of two bundles must never share an id: "
        f"pass `--version {_free_version(identity.partition('@')[0], earlier)}`"
    )


def _free_version(name: str, earlier: Sequence[str]) -> str:
    """One more than the highest number in use."""
    versions = [id_.removeprefix(f"{name}@") for id_ in earlier if id_.startswith(f"{name}@")]
    return str(1 + max((int(version) for version in versions if version.isdecimal()), default=0))
