"""Puts a bundle in the place of another, and back.

Beside the folder CURRENT there may be

| folder | what it is |
|---|---|
| CURRENT.previous | the bundle that was in place before: `--rollback` puts it back |
| CURRENT.incoming | a copy being made of the next one; worth nothing until it is in place |
| CURRENT.discarded | what makes room while folders are swapped |

Every step is one rename within one folder. Whichever step a kill comes after, `recover` finds out from which
folders there are, and ends what was begun or undoes it; it runs at the start of every release, too.

| killed | CURRENT | .previous | .discarded | `recover` |
|---|---|---|---|---|
| while copying | old | older | - | drops the copy |
| after 1 (.previous -> .discarded) | old | - | older | puts .discarded back as .previous |
| after 2 (CURRENT -> .previous) | - | old | older | puts .previous back as CURRENT, .discarded as .previous |
| after 3 (.incoming -> CURRENT) | new | old | older | drops .discarded: the release is done |

A roll-back is CURRENT -> .discarded, .previous -> CURRENT, .discarded -> .previous: the same rules end it.
While CURRENT is being renamed it does not exist for a moment: a process that starts just then fails, and
works when started again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from magpie.errors import Aborted, FailedPrecondition, NotFound
from training.release.record import check_unchanged, verify_release


def previous_of(current: Path) -> Path:
    """Where the bundle lies that was in place before."""
    return current.with_name(f"{current.name}.previous")


def incoming_of(current: Path) -> Path:
    """Where the next one is copied to."""
    return current.with_name(f"{current.name}.incoming")


def discarded_of(current: Path) -> Path:
    """What makes room during a swap."""
    return current.with_name(f"{current.name}.discarded")


@contextmanager
def alone(current: Path) -> Iterator[None]:
    """Nobody else releases beside `current` meanwhile. Raises Aborted if somebody does, NotFound."""
    try:
        handle = os.open(current.parent, os.O_RDONLY)
    except OSError as error:
        raise NotFound(f"{current.parent}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, killed or not
        except BlockingIOError as error:
            raise Aborted(f"another release is at work in {current.parent}: wait for its end") from error
        yield
    finally:
        os.close(handle)


def interrupted(current: Path) -> bool:
    """Whether a release or roll-back was killed at work."""
    return (
        discarded_of(current).exists()
        or incoming_of(current).exists()
        or (not current.exists() and previous_of(current).exists())
    )


def recover(current: Path) -> list[str]:
    """End or undo what was killed; may itself be killed and run again. Returns what was done, in words."""
    previous, incoming, discarded = previous_of(current), incoming_of(current), discarded_of(current)
    done = []
    if not current.exists() and previous.exists():
        previous.rename(current)
        done.append(f"{previous} is back as {current}")
    if discarded.exists() and not previous.exists():
        discarded.rename(previous)
        done.append(f"{discarded} is {previous}")
    for rest in (discarded, incoming):
        if rest.exists():
            shutil.rmtree(rest)
            done.append(f"{rest} is dropped")
    _sync(current.parent)
    return done


def install(candidate: Path, current: Path) -> None:
    """Copy a released bundle into the place of `current`, which becomes `.previous`.

    Raises FailedPrecondition, with everything as it was, if the copy is not as released or a step fails.
    """
    try:
        for _ in install_steps(candidate, current):
            pass
    except BaseException as error:
        recover(current)
        if isinstance(error, OSError):
            raise FailedPrecondition(f"{current} is as it was: {error}") from error
        raise


def install_steps(candidate: Path, current: Path) -> Iterator[str]:
    """The steps of `install`, one at a time: each yields once it is done."""
    previous, incoming, discarded = previous_of(current), incoming_of(current), discarded_of(current)
    shutil.copytree(candidate, incoming)
    verify_release(incoming)
    _sync(incoming, *incoming.rglob("*"))
    yield "copied"
    if previous.exists() and current.exists():
        previous.rename(discarded)
        yield "made room"
    if current.exists():
        current.rename(previous)
        yield "moved the old one away"
    incoming.rename(current)
    _sync(current.parent)
    yield "in place"
    if discarded.exists():
        shutil.rmtree(discarded)
        yield "dropped the one before the old one"


def roll_back(current: Path) -> None:
    """Swap `current` and `.previous`; once more swaps them again.

    Raises NotFound if there is no `.previous`, FailedPrecondition if it is damaged or a step fails.
    """
    previous = previous_of(current)
    if not previous.is_dir():
        raise NotFound(f"there is no {previous}: nothing was replaced here")
    check_unchanged(previous)
    try:
        for _ in roll_back_steps(current):
            pass
    except OSError as error:
        recover(current)
        raise FailedPrecondition(f"the roll-back of {current} failed: {error}") from error


def roll_back_steps(current: Path) -> Iterator[str]:
    """The steps of `roll_back`."""
    previous, discarded = previous_of(current), discarded_of(current)
    if current.exists():
        current.rename(discarded)
        yield "made room"
    previous.rename(current)
    yield "put the previous one in place"
    if discarded.exists():
        discarded.rename(previous)
    _sync(current.parent)
    yield "done"


def _sync(*paths: Path) -> None:
    """To disk: the content of files, the lists of names of folders."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
