"""A bundle that is put together out of a trained model and the parts of another bundle."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from magpie.errors import FailedPrecondition
from magpie.vision.bundle import Bundle


@contextmanager
def new_bundle(old: Bundle, out: Path, identity: str, *, taken: str, made: str) -> Iterator[Path]:
    """The folder to write it to, empty; it becomes `out` whole, or not at all.

    `taken` is what comes from the bundle `old`, `made` what two models must not give one name to. Raises
    FailedPrecondition if `out` exists, if `identity` (name@version) is that of `old`, or at the end if what
    was written is no bundle, and OSError if its folder cannot be made.
    """
    if out.exists():
        raise FailedPrecondition(f"{out} exists already: choose another folder, or remove it")
    if identity == old.id:
        raise FailedPrecondition(
            f"{old.id} is the bundle that the {taken} is taken from: {made} must not bear one name; choose "
            "another --version"
        )
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    Bundle.load(partial)
    partial.replace(out)
