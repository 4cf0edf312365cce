"""The cut-off from which on the hits that are shown are right as often as asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_HITS = 20  # shown hits that a precision must rest on


@dataclass(frozen=True, eq=False)
class Shown:
    """The hits of Q queries: what a cut-off decides on."""

    value: NDArray[np.float64]  # (N,) probability or score
    right: NDArray[np.bool_]  # (N,) the product has a grade above 0
    query: NDArray[np.intp]  # (N,)
    fold: NDArray[np.intp]  # (N,) of the query

    def of(self, rows: NDArray[np.bool_]) -> Shown:
        """Some of the hits."""
        return Shown(self.value[rows], self.right[rows], self.query[rows], self.fold[rows])


@dataclass(frozen=True)
class CutOff:
    """A cut-off and what it does. Held out: with cut-offs found on the other folds."""

    value: float | None  # None: no cut-off reaches the precision
    asked: float
    precision: float  # share of the shown hits that are right
    held_out_precision: float
    coverage: float  # share of the queries that still have a hit
    right_kept: float  # share of the right hits that are still shown
    shown: int  # hits
    best_precision: float  # of any cut-off that shows MIN_HITS hits


def cut_off(shown: Shown, precision: float, queries: int) -> CutOff:
    """The lowest cut-off with at least that precision over at least MIN_HITS hits."""
    value, best = _lowest(shown, precision)
    kept = np.zeros(len(shown.value), bool) if value is None else shown.value >= value
    held_out = np.zeros(len(shown.value), bool)
    for fold in np.unique(shown.fold):
        own, _ = _lowest(shown.of(shown.fold != fold), precision)
        if own is not None:
            held_out |= (shown.fold == fold) & (shown.value >= own)
    return CutOff(
        value,
        precision,
        _share(shown.right[kept]),
        _share(shown.right[held_out]),
        len(np.unique(shown.query[kept])) / queries,
        float(shown.right[kept].sum() / max(1, shown.right.sum())),
        int(kept.sum()),
        best,
    )


def _lowest(shown: Shown, precision: float) -> tuple[float | None, float]:
    """The cut-off, if there is one, and the best precision that there is."""
    order = np.argsort(-shown.value, kind="stable")
    values = shown.value[order]
    share = np.cumsum(shown.right[order]) / np.arange(1, len(order) + 1)
    # Equal values stand or fall together, so a cut-off lies at the last of them.
    possible = np.append(values[1:] < values[:-1], True)
    possible[: MIN_HITS - 1] = False
    if not possible.any():
        return None, 0.0
    best = float(share[possible].max())
    good = np.flatnonzero(possible & (share >= precision))
    return (float(values[good[-1]]) if len(good) else None), best


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else 0.0
