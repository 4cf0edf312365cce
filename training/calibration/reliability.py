"""How far probabilities are from what comes true: expected calibration error, and the diagram of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

BINS = 15  # as Guo et al. 2017
Values = NDArray[np.float64]  # (N,)


class Bins(NamedTuple):
    """Equally many pairs in each, by rising probability."""

    pairs: NDArray[np.intp]  # (B,) how many
    probability: Values  # (B,) the mean of what was said
    right: Values  # (B,) the share that came true


def equal_mass_bins(probability: Values, right: NDArray[np.bool_], bins: int = BINS) -> Bins:
    """(N,) -> at most `bins` bins. Of equal widths most would be empty: most hits are surely wrong."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return Bins(
        np.array([len(part) for part in parts], np.intp),
        np.array([probability[part].mean() for part in parts]),
        np.array([right[part].mean() for part in parts]),
    )


def expected_calibration_error(probability: Values, right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Mean over the pairs of |share that came true - probability|, bin by bin; [0, 1].

    Guo, Pleiss, Sun, Weinberger 2017, On calibration of modern neural networks, arXiv 1706.04599, with bins
    of equal mass (Nguyen and O'Connor 2015). 0 if there are no pairs.
    """
    if not len(probability):
        return 0.0
    found = equal_mass_bins(probability, right, bins)
    return float((found.pairs * np.abs(found.right - found.probability)).sum() / found.pairs.sum())


class Reliability(NamedTuple):
    """Pairs of one space that nothing was fitted on, (N,) each."""

    similarity: Values
    probability: Values
    right: NDArray[np.bool_]


def draw(spaces: Mapping[str, Reliability], path: Path) -> None:
    """The reliability diagram of every space, PNG or SVG by the path's suffix.

    On the diagonal a probability is what comes true. Under it lies how many hits have which probability.
    """
    figure = Figure(figsize=(4.2 * len(spaces), 5.2), layout="constrained")
    axes = figure.subplots(2, len(spaces), squeeze=False, sharex=True, height_ratios=(4, 1))
    for column, (space, pairs) in enumerate(spaces.items()):
        curve, counts = axes[0, column], axes[1, column]
        curve.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        raw = np.clip(pairs.similarity, 0.0, 1.0)
        for values, name, style in (
            (raw, "similarity as it is", "s--"),
            (pairs.probability, "calibrated", "o-"),
        ):
            found = equal_mass_bins(values, pairs.right)
            error = expected_calibration_error(values, pairs.right)
            curve.plot(found.probability, found.right, style, markersize=4, label=f"{name}, ECE {error:.3f}")
        curve.set(title=f"{space} ({len(pairs.right)} hits)", ylabel="share that is right", ylim=(0, 1))
        curve.legend(loc="upper left", fontsize="small")
        counts.hist(pairs.probability, bins=20, range=(0, 1), color="0.6")
        counts.set(xlabel="probability", ylabel="hits", yscale="log", xlim=(0, 1))
    figure.savefig(path, dpi=120)
