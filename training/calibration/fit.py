"""Fits a bundle's calibration: a logistic curve for each space, and one near it for each category.

The curve of a category is the most likely one under a Gaussian prior around the space's curve of all
categories. The strength of the prior, the same for all categories of a space, is the one with the least log
loss on products that the curves were not fitted on, among STRENGTHS; None among them leaves all categories on
the one curve. So a category with few pairs stays near that curve, and one with none is on it.

Of other forms, beta calibration (Kull et al. 2017) was no better than the logistic curve, and isotonic
regression a little worse (log loss .257, .258 and .260 for the ImageNet backbone on groceries).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magpie.errors import InvalidArgument
from magpie.ranking.calibration import Calibration, Curve, SpaceCalibration
from training.calibration import platt
from training.calibration.pairs import Pairs, Similarity, hits
from training.calibration.reliability import BINS, Reliability, expected_calibration_error

TOP = 10  # hits a photo: what a search shows unless it is asked for another number
FOLDS = 5
STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, None)  # of the prior; a pair has curvature 1/4 at most
MIN_PHOTOS = 40
MIN_PAIRS = 20  # right ones, and wrong ones


@dataclass(frozen=True, eq=False)
class SpaceReport:
    """One space's curves, measured on products that they, and their prior's strength, were not fitted on."""

    held_out: Reliability
    first_hit: Reliability  # of these, the best hit of each photo
    log_loss: float  # mean, natural logarithm
    brier: float  # mean squared difference of probability and outcome


@dataclass(frozen=True)
class CalibrationReport:
    """What was fitted on, and how far it can be trusted."""

    photos: int
    products: int  # that the photos show
    top: int
    spaces: Mapping[str, SpaceReport]

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "photos": self.photos,
            "products": self.products,
            "hits_a_photo": self.top,
            "ece_bins": BINS,
            "held_out": {space: _figures(report) for space, report in self.spaces.items()},
        }


def fit_calibration(
    similarity: Mapping[str, Similarity],
    same: NDArray[np.bool_],
    category: Sequence[str],
    *,
    embedder_sha256: str,
    product: Sequence[str] | None = None,
    top: int = TOP,
    folds: int = FOLDS,
    seed: int = 0,
    fitted_on: str = "",
) -> tuple[Calibration, CalibrationReport]:
    """The calibration of a bundle, fitted on the first `top` hits of each of Q photos (see `pairs`).

    `similarity`: space -> (Q, G) cosines of photos and products; `same` (Q, G): the photo shows the product;
    `category` (G,), empty where it is not known. Where the columns are pictures, `product` (G,) names the
    product of each. The embedder must not have been trained on the photos: it is far too sure of those.

    The report's figures come from cross-validation: folds part the products, not the hits. Raises
    InvalidArgument if there are too few photos, or too few right or wrong hits.
    """
    pairs = hits(similarity, same, category, top=top, product=product)
    photos, groups = len(same), len(np.unique(pairs.group))
    right = int(pairs.right.sum())
    if photos < MIN_PHOTOS or groups < folds:
        raise InvalidArgument(
            "queries",
            f"{photos} photos of {groups} products are too few to calibrate on: at least {MIN_PHOTOS} photos "
            f"of {folds} products are needed",
        )
    if min(right, len(pairs) - right) < MIN_PAIRS:
        raise InvalidArgument(
            "queries",
            f"of {len(pairs)} hits {right} are right: at least {MIN_PAIRS} right and {MIN_PAIRS} wrong ones "
            "are needed; take more photos, or a larger catalogue",
        )
    fold = np.random.default_rng(seed).permutation(groups) % folds
    fold_of = fold[np.unique(pairs.group, return_inverse=True)[1].reshape(-1)]  # (N,)
    spaces, reports = {}, {}
    for name, values in pairs.similarity.items():
        spaces[name], reports[name] = _space(values, pairs, fold_of, folds)
    return (
        Calibration(embedder_sha256, spaces, fitted_on),
        CalibrationReport(photos, groups, top, reports),
    )


def measure_calibration(
    calibration: Calibration,
    similarity: Mapping[str, Similarity],
    same: NDArray[np.bool_],
    category: Sequence[str],
    *,
    top: int = TOP,
) -> CalibrationReport:
    """How far a calibration is off on photos that it was not fitted on; arguments as for `fit_calibration`.

    Raises InvalidArgument if the shapes do not fit.
    """
    pairs = hits(similarity, same, category, top=top)
    names = [str(name) for name in pairs.category]
    return CalibrationReport(
        len(same),
        len(np.unique(pairs.group)),
        top,
        {
            space: _report(values, calibration.probability(space, values, names), pairs)
            for space, values in pairs.similarity.items()
            if space in calibration.spaces
        },
    )


def _space(
    similarity: NDArray[np.float64], pairs: Pairs, fold_of: NDArray[np.intp], folds: int
) -> tuple[SpaceCalibration, SpaceReport]:
    centre, spread = float(similarity.mean()), float(similarity.std()) or 1.0
    x = (similarity - centre) / spread
    names, category = np.unique(pairs.category, return_inverse=True)

    def curves(rows: NDArray[np.bool_], strength: float | None) -> tuple[platt.Curves, platt.Curves]:
        """(2,) of all categories, (C, 2) of each, fitted on `rows`."""
        everywhere = platt.fit(x[rows], pairs.right[rows])
        if strength is None:
            return everywhere, np.tile(everywhere, (len(names), 1))
        own = platt.fit_near(x[rows], pairs.right[rows], category[rows], len(names), everywhere, strength)
        own[names == ""] = everywhere
        return everywhere, own

    def predicted(strength: float | None, *out: int) -> platt.Values:
        """(N,) by curves that did not see the folds `out`."""
        return platt.probability(curves(~np.isin(fold_of, out), strength)[1][category], x)

    # Loss of each strength on fold b by curves that saw neither a nor b: it chooses the strength for fold a.
    within = np.zeros((len(STRENGTHS), folds))
    alone = np.zeros(len(STRENGTHS))
    held_out = np.zeros((len(STRENGTHS), len(x)))
    for row, strength in enumerate(STRENGTHS):
        for a, b in combinations(range(folds), 2):
            losses = _log_losses(predicted(strength, a, b), pairs.right)
            within[row, a] += losses[fold_of == b].sum()
            within[row, b] += losses[fold_of == a].sum()
        for a in range(folds):
            held_out[row, fold_of == a] = predicted(strength, a)[fold_of == a]
        alone[row] = _log_losses(held_out[row], pairs.right).sum()
    chosen = np.array([_least(within[:, a]) for a in range(folds)])
    honest = held_out[chosen[fold_of], np.arange(len(x))]
    strength = STRENGTHS[_least(alone)]

    everywhere, own = curves(np.ones(len(x), bool), strength)

    def of_similarity(curve: platt.Curves, rows: NDArray[np.bool_]) -> Curve:
        slope = float(curve[0] / spread)
        return Curve(slope, float(curve[1] - slope * centre), int(rows.sum()), int(pairs.right[rows].sum()))

    report = _report(similarity, honest, pairs)
    return (
        SpaceCalibration(
            of_similarity(everywhere, np.ones(len(x), bool)),
            {
                str(name): of_similarity(own[number], category == number)
                for number, name in enumerate(names)
                if name and strength is not None
            },
            strength,
            ece_before=expected_calibration_error(np.clip(similarity, 0.0, 1.0), pairs.right),
            ece_after=expected_calibration_error(honest, pairs.right),
        ),
        report,
    )


def _least(losses: NDArray[np.float64]) -> int:
    """The strength with the least loss; of equal ones the strongest."""
    return int(len(losses) - 1 - np.argmin(losses[::-1]))


def _log_losses(probability: platt.Values, right: NDArray[np.bool_]) -> platt.Values:
    sure = np.clip(np.where(right, probability, 1 - probability), 1e-12, 1.0)
    return np.asarray(-np.log(sure), np.float64)


def _report(similarity: NDArray[np.float64], probability: platt.Values, pairs: Pairs) -> SpaceReport:
    first = pairs.place == 0
    return SpaceReport(
        Reliability(similarity, probability, pairs.right),
        Reliability(similarity[first], probability[first], pairs.right[first]),
        log_loss=float(_log_losses(probability, pairs.right).mean()),
        brier=float(((probability - pairs.right) ** 2).mean()),
    )


def _figures(report: SpaceReport) -> dict[str, float]:
    held_out, first = report.held_out, report.first_hit
    return {
        "ece_before": expected_calibration_error(np.clip(held_out.similarity, 0.0, 1.0), held_out.right),
        "ece_after": expected_calibration_error(held_out.probability, held_out.right),
        "log_loss": report.log_loss,
        "brier": report.brier,
        "right": float(held_out.right.mean()),
        # The first hit is right more often than its similarity alone tells: it has beaten all the others.
        "first_hit_right": float(first.right.mean()),
        "first_hit_probability": float(first.probability.mean()),
    }
