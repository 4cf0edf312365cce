"""May a bundle take the place of another for one customer? Both are asked the same queries.

A loss counts in two ways, as in the gate of a release: it is shown by a paired test, after Holm's correction
over all figures; or it is larger than MARGIN on queries too few to tell it from chance. Few queries cannot
acquit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.evaluation.retrieval import ndcg_at_k, recall_at_k
from magpie.evaluation.significance import bootstrap_interval, holm, sign_flip_p
from magpie.v1.image_pb2 import Image

MARGIN = 0.05  # 5 points: about what a shopper notices, one query in twenty
ALPHA = 0.05
_REASON_WORDS = 3


@dataclass(frozen=True)
class GateQuery:
    """A photo and the grade of each product that is right for it, above 0."""

    kind: str  # of query: each is judged for itself
    photo: Image
    grades: dict[str, float]
    leave_out: str = ""  # SHA-256 of the stored picture that must not be found; empty: all may be

    @property
    def right(self) -> set[str]:
        """The products that are right."""
        return {product_id for product_id, grade in self.grades.items() if grade > 0}


@dataclass(frozen=True)
class Figure:
    """One metric on one kind of queries. A difference is the new bundle's less the old one's."""

    kind: str
    metric: str
    queries: int
    old: float
    new: float
    low: float  # 95 % bootstrap interval of the difference
    high: float
    p: float  # after Holm's correction
    loss: str = ""  # why this keeps the new bundle from serving; empty: it does not

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self.metric} {self.old:.3f} -> {self.new:.3f} ({self.new - self.old:+.3f}, 95 % "
            f"interval {self.low:+.3f} to {self.high:+.3f}, p {self.p:.3g}, {self.queries} queries)"
        )


# Product ids, best first, that a bundle finds for a query.
Ranking = Callable[[str, GateQuery], list[str]]


def compare(
    queries: Sequence[GateQuery], old: str, new: str, ranking: Ranking, progress: Callable[[], None]
) -> list[Figure]:
    """Ask both bundles every query. recall@1 of each kind, nDCG@10 too where queries have several grades."""
    rankings = []
    for query in queries:
        rankings.append((query, ranking(old, query), ranking(new, query)))
        progress()
    measured = []
    for name in dict.fromkeys(query.kind for query in queries):
        of_set = [row for row in rankings if row[0].kind == name]
        pairs = [[recall_at_k(found, query.right, 1) for found in both] for query, *both in of_set]
        measured.append((name, "recall@1", np.array(pairs, np.float64)))
        if any(len(query.grades) > 1 for query, *_ in of_set):
            pairs = [[ndcg_at_k(found, query.grades, 10) for found in both] for query, *both in of_set]
            measured.append((name, "ndcg@10", np.array(pairs, np.float64)))
    differences = [values[:, 1] - values[:, 0] for *_, values in measured]
    adjusted = holm([sign_flip_p(difference) for difference in differences])
    return [
        _figure(name, metric, values, p) for (name, metric, values), p in zip(measured, adjusted, strict=True)
    ]


def _figure(name: str, metric: str, values: NDArray[np.float64], p: float) -> Figure:
    old, new = (float(mean) for mean in values.mean(axis=0))
    low, high = bootstrap_interval(values[:, 1] - values[:, 0])
    loss = ""
    if new < old and p <= ALPHA:
        loss = "significantly worse"
    elif new - old < -MARGIN:
        loss = (
            f"fell by more than {MARGIN:.2f}, and {len(values)} queries are too few to tell that from chance"
        )
    return Figure(name, metric, len(values), old, new, low, high, p, loss)


def refuse_losses(figures: Sequence[Figure], reason: str) -> None:
    """Raises FailedPrecondition naming what is worse and the way out, unless there is a reason."""
    lost = [f"  {figure}: {figure.loss}" for figure in figures if figure.loss]
    if lost and not reason:
        lines = "\n".join(lost)
        raise FailedPrecondition(
            f"not switched, the new bundle is worse:\n{lines}\n"
            "Pass `--allow-worse REASON` if this is meant to be: the reason is recorded."
        )


def check_reason(reason: str) -> str:
    """A reason that somebody can read a year from now. Raises InvalidArgument."""
    words = reason.split()
    if len(words) < _REASON_WORDS:
        raise InvalidArgument(
            "--allow-worse", f"needs a reason in some words, it is recorded; got {reason!r}"
        )
    return " ".join(words)
