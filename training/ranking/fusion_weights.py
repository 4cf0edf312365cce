"""The weights of the spaces that rank a customer's graded queries best, if they beat the default.

All weights on a grid of the simplex are tried: there are few spaces, and mean nDCG is a step function that
has no gradient. A candidate pays a little for every step away from the default, so that equal rankings leave
the default as it is. Whether the search is worth anything is told by cross-validation: the weights chosen on
the other folds rank the queries of one fold. The default stays unless it is beaten there by more than one
standard error of the difference (Breiman et al. 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from magpie.errors import InvalidArgument
from training.ranking.graded import Candidates

STEPS = (20, 10, 5, 4, 2)  # of the grid: weights are multiples of 1 / steps, the finest of at most MAX_POINTS
MAX_POINTS = 1000
DISTANCE_COST = 0.01  # nDCG that a weight vector pays for lying wholly elsewhere
MIN_QUERIES = 30
FOLDS = 5

Weights = NDArray[np.float64]  # (S,), sum 1


@dataclass(frozen=True, eq=False)
class WeightsFit:
    """What was found, and what it is worth on queries that it was not found on."""

    weights: Weights  # to be used: the fitted ones, or the default
    fitted: Weights  # the best on all queries, used or not
    default_ndcg: NDArray[np.float64]  # (Q,) nDCG@10 by the default
    held_out_ndcg: NDArray[np.float64]  # (Q,) by weights fitted on the other folds
    fold_weights: NDArray[np.float64]  # (F, S)
    fold: NDArray[np.intp]  # (Q,)

    @property
    def better(self) -> bool:
        """Whether the fit beats the default by more than one standard error, held out."""
        gain, error = self.gain
        return gain > error

    @property
    def gain(self) -> tuple[float, float]:
        """Mean of nDCG held out minus that of the default, and its standard error."""
        difference = self.held_out_ndcg - self.default_ndcg
        return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def fit_weights(
    queries: Sequence[Candidates], default: Weights, folds: int = FOLDS, seed: int = 0
) -> WeightsFit:
    """Weights (S,) for Q queries. Photos of the same best product are in one fold.

    Raises InvalidArgument if there are too few queries.
    """
    best = [max(query.grades, key=lambda product: (query.grades[product], -product)) for query in queries]
    products = len(set(best))
    if len(queries) < MIN_QUERIES or products < folds:
        raise InvalidArgument(
            "queries",
            f"{len(queries)} graded photos of {products} products are too few to fit weights: at least "
            f"{MIN_QUERIES} photos of {folds} products are needed",
        )
    default = default / default.sum()
    grid = simplex(len(default), default)
    ndcg = np.stack([query.ndcg(grid) for query in queries], axis=1)  # (W, Q)
    away = np.abs(grid - default).sum(axis=1) / 2  # (W,) in [0, 1]
    fold_of_product = np.random.default_rng(seed).permutation(products) % folds
    fold = fold_of_product[np.unique(best, return_inverse=True)[1].reshape(-1)]

    def chosen(rows: NDArray[np.bool_]) -> int:
        """Best on these queries; of equal ones the nearest to the default, which is the first."""
        worth = ndcg[:, rows].mean(axis=1) - DISTANCE_COST * away
        return int(np.lexsort((away, -np.round(worth, 12)))[0])

    held_out, fold_weights = np.zeros(len(queries)), np.zeros((folds, len(default)))
    for number in range(folds):
        choice = chosen(fold != number)
        held_out[fold == number] = ndcg[choice, fold == number]
        fold_weights[number] = grid[choice]
    fitted = grid[chosen(np.ones(len(queries), bool))]
    result = WeightsFit(fitted, fitted, ndcg[0], held_out, fold_weights, fold)
    if result.better:
        return result
    return WeightsFit(default, fitted, ndcg[0], held_out, np.tile(default, (folds, 1)), fold)


def simplex(spaces: int, first: Weights) -> NDArray[np.float64]:
    """All (W, S) weights that are multiples of 1 / steps and sum to 1, with `first` before them."""
    points = {steps: comb(steps + spaces - 1, spaces - 1) for steps in STEPS}
    steps = next((steps for steps in STEPS if points[steps] <= MAX_POINTS), STEPS[-1])
    bars = np.array(list(combinations(range(steps + spaces - 1), spaces - 1)), np.intp)
    bars = bars.reshape(points[steps], spaces - 1)
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), steps + spaces - 1)])
    return np.vstack([first, (np.diff(edges, axis=1) - 1) / steps])
