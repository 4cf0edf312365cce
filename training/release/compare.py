"""Two models on the same queries: figures, whether they differ, and who wins where.

A is what one has, B what one thinks of taking: a difference is B less A.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from magpie.errors import InvalidArgument
from magpie.evaluation.significance import (
    Differences,
    bootstrap_interval,
    detectable_difference,
    holm,
    sign_flip_p,
)
from training.evaluation.result import SetResult
from training.recipe_file import nearest

# Whether the nearest is right, and whether the first ten are in a good order.
METRICS = ("recall@1", "ndcg@10")
FLIP = "recall@1"  # a query is right or wrong by this one
ALPHA = 0.05

Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True)
class MetricComparison:
    """One metric on one set. `p_adjusted` is Holm's over all metrics and sets that were looked at."""

    set: str
    metric: str
    queries: int
    mean_a: float
    mean_b: float
    difference: float  # B less A
    low: float  # 95 % bootstrap interval of the difference
    high: float
    p: float
    p_adjusted: float
    detectable: float  # a true difference of this size would have been shown in four cases of five
    verdict: Verdict

    def __str__(self) -> str:
        return (
            f"{self.set}: {self.metric} {self.mean_a:.3f} -> {self.mean_b:.3f} ({self.difference:+.3f}, 95 % "
            f"interval {self.low:+.3f} to {self.high:+.3f}, p {self.p_adjusted:.3g}, {self.queries} queries)"
        )


@dataclass(frozen=True)
class CategoryChange:
    """Queries of a category that one model alone gets right."""

    category: str
    queries: int
    only_a: int
    only_b: int

    @property
    def net(self) -> int:
        """Won by B less lost."""
        return self.only_b - self.only_a


@dataclass(frozen=True)
class Flip:
    """A query that one model gets right and the other does not."""

    query: str
    category: str
    right: Literal["A", "B"]


@dataclass(frozen=True)
class SetComparison:
    """One evaluation set."""

    name: str
    queries: int
    metrics: tuple[MetricComparison, ...]
    categories: tuple[CategoryChange, ...]  # what B lost most first; those without a change are left out
    flips: tuple[Flip, ...]


@dataclass(frozen=True)
class Comparison:
    """All sets."""

    sets: tuple[SetComparison, ...]
    alpha: float

    def metrics(self) -> Iterator[MetricComparison]:
        """Every metric of every set."""
        for entry in self.sets:
            yield from entry.metrics

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"alpha": self.alpha, "sets": [asdict(entry) for entry in self.sets]}


def compare_results(
    a: Sequence[SetResult],
    b: Sequence[SetResult],
    metrics: Sequence[str] = METRICS,
    alpha: float = ALPHA,
) -> Comparison:
    """Compare set by set, query by query.

    Raises InvalidArgument if the two were not measured on the same sets and queries, or lack a metric.
    """
    pairs = _paired(a, b)
    tests = [
        (one, other, metric, _difference(one, other, metric)) for one, other in pairs for metric in metrics
    ]
    p_values = [sign_flip_p(difference) for *_, difference in tests]
    rows = [
        _row((one, other), metric, difference, (p, adjusted), (alpha, len(tests)))
        for (one, other, metric, difference), p, adjusted in zip(tests, p_values, holm(p_values), strict=True)
    ]
    sets = []
    for place, (one, other) in enumerate(pairs):
        judged = tuple(rows[place * len(metrics) : (place + 1) * len(metrics)])
        flips = _flips(one, other)
        sets.append(
            SetComparison(one.name, len(one.queries), judged, _categories(_groups(one), flips), flips)
        )
    return Comparison(tuple(sets), alpha)


def _paired(a: Sequence[SetResult], b: Sequence[SetResult]) -> list[tuple[SetResult, SetResult]]:
    if not a:
        raise InvalidArgument("suite", "nothing was measured, so there is nothing to compare")
    names_a, names_b = [one.name for one in a], [other.name for other in b]
    if names_a != names_b:
        only = sorted(set(names_a) ^ set(names_b))
        raise InvalidArgument(
            "suite", f"A and B were not measured on the same sets: {', '.join(only or names_a)}"
        )
    for one, other in zip(a, b, strict=True):
        _same_queries(one, other)
    return list(zip(a, b, strict=True))


def _same_queries(one: SetResult, other: SetResult) -> None:
    if not one.queries:
        raise InvalidArgument(one.name, "has no queries")
    if one.queries == other.queries:
        return
    only_a = Counter(one.queries) - Counter(other.queries)
    only_b = Counter(other.queries) - Counter(one.queries)
    parts = [
        f"{sum(only.values())} only of {name} (such as {next(iter(only))})"
        for name, only in (("A", only_a), ("B", only_b))
        if only
    ]
    raise InvalidArgument(
        one.name,
        "the two were measured on different queries: "
        + (", ".join(parts) or "the same ones in another order")
        + "; measure both anew with the same suite and data",
    )


def _difference(one: SetResult, other: SetResult, metric: str) -> Differences:
    for result in (one, other):
        if metric not in result.metrics:
            raise InvalidArgument("metric", f"`{metric}` was not measured{nearest(metric, result.metrics)}")
        values = result.metrics[metric]
        if values.shape != (len(result.queries),) or not np.isfinite(values).all():
            raise InvalidArgument(result.name, f"{metric} is not one finite number a query: {values.shape}")
    return np.asarray(other.metrics[metric] - one.metrics[metric], np.float64)


def _row(
    pair: tuple[SetResult, SetResult],
    metric: str,
    difference: Differences,
    p: tuple[float, float],  # as it is, and adjusted
    family: tuple[float, int],  # alpha, and the number of tests
) -> MetricComparison:
    alpha, tests = family
    mean = float(difference.mean())
    low, high = bootstrap_interval(difference)
    verdict: Verdict = "no difference shown"
    if p[1] <= alpha:
        verdict = "better" if mean > 0 else "worse"
    return MetricComparison(
        set=pair[0].name,
        metric=metric,
        queries=len(difference),
        mean_a=pair[0].mean(metric),
        mean_b=pair[1].mean(metric),
        difference=mean,
        low=low,
        high=high,
        p=p[0],
        p_adjusted=p[1],
        # For the hardest place in Holm's order, so that it is never promised in vain.
        detectable=detectable_difference(difference, alpha / tests),
        verdict=verdict,
    )


def _groups(result: SetResult) -> Sequence[str]:
    return result.groups.get("category") or [""] * len(result.queries)


def _flips(one: SetResult, other: SetResult) -> tuple[Flip, ...]:
    """What A alone has right first, by category."""
    if FLIP not in one.metrics or FLIP not in other.metrics:
        return ()
    right_a, right_b = one.metrics[FLIP] > 0, other.metrics[FLIP] > 0
    flips = [
        Flip(query, category, "A" if in_a else "B")
        for query, category, in_a, in_b in zip(one.queries, _groups(one), right_a, right_b, strict=True)
        if in_a != in_b
    ]
    return tuple(sorted(flips, key=lambda flip: (flip.right, flip.category, flip.query)))


def _categories(groups: Sequence[str], flips: Sequence[Flip]) -> tuple[CategoryChange, ...]:
    sizes = Counter(groups)
    only_a = Counter(flip.category for flip in flips if flip.right == "A")
    only_b = Counter(flip.category for flip in flips if flip.right == "B")
    changes = [
        CategoryChange(category, sizes[category], only_a[category], only_b[category])
        for category in {*only_a, *only_b}
    ]
    return tuple(sorted(changes, key=lambda change: (change.net, -change.queries, change.category)))
