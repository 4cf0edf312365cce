"""The sets on which a release must not be worse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from magpie.errors import FailedPrecondition, InvalidArgument, NotFound
from training.evaluation import suite as suite_module
from training.evaluation.measure import present
from training.evaluation.suite import BoxSet, EvaluationSet, Suite
from training.recipe_file import nearest

DEFAULT_SUITE = Path(suite_module.__file__).with_name("suites") / "default.toml"


def protected_sets(suite_file: Path, data: Path, skip: Sequence[str]) -> list[EvaluationSet]:
    """All but those that are named in `skip`.

    Raises FailedPrecondition for sets that are not on this machine, InvalidArgument for a name that there is
    not and if no set is left.
    """
    suite = Suite.load(suite_file)
    protected = {entry.name: entry for entry in suite.set if entry.protected}
    known = [*protected, *(entry.name for entry in suite.boxes)]
    for name in skip:
        if name not in known:
            raise InvalidArgument("--skip-set", f"there is no protected set `{name}`{nearest(name, known)}")
    wanted = Suite(tuple(entry for name, entry in protected.items() if name not in skip))
    if not wanted.set:
        raise InvalidArgument(str(suite_file), "no protected set is left to compare on")
    absent: list[str] = []
    try:
        found = present(wanted, data, absent.append)
    except NotFound:  # none of them
        found = []
    if absent:
        names = [entry.name for entry in wanted.set if entry not in found]
        lines = "\n".join(f"  {line}" for line in absent)
        raise FailedPrecondition(
            "protected sets are not on this machine, so nobody can say whether the candidate is worse:\n"
            f"{lines}\nPut them under {data}, or pass {' '.join(f'`--skip-set {n}`' for n in names)}: "
            "that is recorded in the release."
        )
    return found


def protected_boxes(suite_file: Path, data: Path, skip: Sequence[str]) -> list[BoxSet]:
    """The sets with boxes, but those that are named in `skip`.

    Raises FailedPrecondition for sets that are not on this machine.
    """
    wanted = [entry for entry in Suite.load(suite_file).boxes if entry.name not in skip]
    absent = [entry for entry in wanted if not (data / entry.boxes.data).exists()]
    if absent:
        lines = "\n".join(f"  {entry.name}: {data / entry.boxes.data}" for entry in absent)
        raise FailedPrecondition(
            "sets with boxes are not on this machine, so nobody can say whether the detector is worse:\n"
            f"{lines}\nPut them there, or pass {' '.join(f'`--skip-set {e.name}`' for e in absent)}: "
            "that is recorded in the release."
        )
    return wanted
