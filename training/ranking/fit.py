"""One customer's ranking config, fitted on its graded queries: weights of the spaces, and a cut-off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magpie.evaluation.retrieval import NDCG_GAIN
from magpie.ranking.calibration import HIT_SPACE, Calibration
from magpie.ranking.config import DEFAULT_WEIGHTS
from magpie.v1.ranking_config_pb2 import Fusion, RankingConfig
from training.ranking.cut_off import CutOff, Shown, cut_off
from training.ranking.fusion_weights import Weights, WeightsFit, fit_weights
from training.ranking.graded import Candidates

INTERVAL = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class RankingFit:
    """The config, and how it came about."""

    config: RankingConfig
    spaces: tuple[str, ...]
    queries: int
    weights: WeightsFit
    cut_off: CutOff | None  # None: none was asked for

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        fit = self.weights
        gain, error = fit.gain
        low, high = _interval(fit.held_out_ndcg - fit.default_ndcg)
        return {
            "queries": self.queries,
            "gain": NDCG_GAIN,
            "ndcg@10_default": float(fit.default_ndcg.mean()),
            "ndcg@10_fitted_held_out": float(fit.held_out_ndcg.mean()),
            "difference": gain,
            "difference_standard_error": error,
            f"difference_{INTERVAL:.0%}": [low, high],
            "uses": "fitted" if fit.better else "default",
            "weights": _named(self.spaces, fit.weights),
            "fitted_weights": _named(self.spaces, fit.fitted),
            "cut_off": None
            if self.cut_off is None
            else {
                "field": "min_probability" if self.config.HasField("min_probability") else "min_score",
                **asdict(self.cut_off),
            },
        }


def default_weights(spaces: Sequence[str]) -> Weights:
    """What the built-in config would use, (S,)."""
    known = np.array([DEFAULT_WEIGHTS.get(space, 0.0) for space in spaces])
    return known / known.sum() if known.any() else np.full(len(spaces), 1 / len(spaces))


def fit_ranking(
    queries: Sequence[Candidates],
    spaces: Sequence[str],
    categories: Sequence[str],
    *,
    base: RankingConfig | None = None,
    calibration: Calibration | None = None,
    precision: float | None = None,
    seed: int = 0,
) -> RankingFit:
    """Fit weights for `spaces` (S) and, with `precision`, a cut-off; `categories` (P,) are the products'.

    The other rules of `base`, the config that is replaced, stay: filter, boosts, grouping. Its `min_score`
    goes, which belongs to the old weights. The fit is made without those rules. With a calibration the
    cut-off is a `min_probability`, without one a `min_score`. Raises InvalidArgument if there are too few
    queries.
    """
    fit = fit_weights(queries, default_weights(spaces), seed=seed)
    config = RankingConfig()
    if base is not None:
        config.CopyFrom(base)
    config.fusion.CopyFrom(Fusion(method=Fusion.METHOD_WEIGHTED, weights=_named(spaces, fit.weights)))
    config.ClearField("min_score")
    found = None
    if precision is not None:
        config.ClearField("min_probability")
        shown = _shown(queries, fit, calibration, list(spaces).index(HIT_SPACE), categories)
        found = cut_off(shown, precision, len(queries))
        if found.value is not None and calibration is not None:
            config.min_probability = found.value
        elif found.value is not None:
            config.min_score = found.value
    return RankingFit(config, tuple(spaces), len(queries), fit, found)


def _named(spaces: Sequence[str], weights: Weights) -> dict[str, float]:
    return {space: round(float(weight), 6) for space, weight in zip(spaces, weights, strict=True)}


def _shown(
    queries: Sequence[Candidates],
    fit: WeightsFit,
    calibration: Calibration | None,
    hit_space: int,
    categories: Sequence[str],
) -> Shown:
    """The hits that the fitted config shows before its cut-off."""
    values: list[NDArray[np.float64]] = []
    right: list[bool] = []
    number: list[int] = []
    for row, query in enumerate(queries):
        products, scores = query.ranking(fit.weights)
        if calibration is not None:
            best = np.array([query.similarity[query.product == p, hit_space].max() for p in products])
            scores = calibration.probability(HIT_SPACE, best, [categories[p] for p in products])
        values.append(scores)
        right += [query.grades.get(int(product), 0.0) > 0 for product in products]
        number += [row] * len(products)
    query_of = np.array(number, np.intp)
    return Shown(np.concatenate(values), np.array(right, bool), query_of, fit.fold[query_of])


def _interval(difference: NDArray[np.float64]) -> tuple[float, float]:
    """Percentile bootstrap of the mean over queries."""
    rng = np.random.default_rng(0)
    means = difference[rng.integers(0, len(difference), (_RESAMPLES, len(difference)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return float(low), float(high)
