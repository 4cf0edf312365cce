"""May a bundle take the place of another? It may not if it is worse on a protected set.

A loss counts in two ways:

- it is shown: the paired test, after Holm's correction over the protected sets and both metrics, says worse;
- it is large and cannot be told from chance: the figure falls by more than MARGIN on a set whose queries are
  too few to show it. Few queries cannot acquit: not being shown worse is not the same as being as good
  (non-inferiority; Piaggio et al., JAMA 2012).

A smaller fall that is not shown passes, with a warning that says how large a loss is not ruled out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from magpie.errors import FailedPrecondition, InvalidArgument
from training.release.compare import Comparison, MetricComparison

MARGIN = 0.05  # 5 points: about what a shopper notices, one query in twenty
_REASON_WORDS = 3


@dataclass(frozen=True)
class Loss:
    """Why a bundle is refused."""

    row: MetricComparison
    kind: Literal["shown", "large"]

    def __str__(self) -> str:
        if self.kind == "shown":
            return f"{self.row}: significantly worse"
        return (
            f"{self.row}: fell by more than {MARGIN:.2f}, and {self.row.queries} queries are too few to tell "
            f"that from chance (they would show {self.row.detectable:.3f})"
        )


def losses(comparison: Comparison, margin: float = MARGIN) -> list[Loss]:
    """Of A (what is in place) against B (what would take its place)."""
    found = []
    for row in comparison.metrics():
        if row.verdict == "worse":
            found.append(Loss(row, "shown"))
        elif row.verdict == "no difference shown" and row.difference < -margin:
            found.append(Loss(row, "large"))
    return found


def warnings(comparison: Comparison, margin: float = MARGIN) -> list[str]:
    """Where a loss larger than the margin is not ruled out, though none was shown."""
    lost = {(loss.row.set, loss.row.metric) for loss in losses(comparison, margin)}
    return [
        f"{row.set}: {row.metric}: a loss of up to {-row.low:.3f} is not ruled out by {row.queries} queries"
        for row in comparison.metrics()
        if row.low < -margin and (row.set, row.metric) not in lost
    ]


def check_reason(reason: str) -> str:
    """A reason that somebody can read a year from now. Raises InvalidArgument."""
    words = reason.split()
    if len(words) < _REASON_WORDS or not any(len(word) > _REASON_WORDS for word in words):
        raise InvalidArgument(
            "--allow-worse", f"needs a reason in some words, it is recorded in the release; got {reason!r}"
        )
    return " ".join(words)


def refuse_losses(found: Sequence[object], reason: str | None) -> None:
    """Raises FailedPrecondition naming every set and figure and the way out, unless there is a reason."""
    if not found or reason is not None:
        return
    lines = "\n".join(f"  {loss}" for loss in found)
    raise FailedPrecondition(
        f"not released, it is worse than what is in place:\n{lines}\n"
        "Train on, or pass `--allow-worse REASON` if this is meant to be: the reason is recorded."
    )
