"""How likely is it that a hit is the same product? From its similarity, by a logistic curve.

A similarity of 0.7 may be certain among juices and a coin toss among apples, and another bundle's 0.7 means
something else again. The curve (Platt 1999, Probabilistic outputs for support vector machines) gives every
space and category its own scale, so that a cut-off means the same everywhere:

    P(same product) = 1 / (1 + exp(-(slope * similarity + intercept)))

Training fits it (`training.calibration`) on what search finds for photos that the embedder was not trained
on; categories with few such pairs lie near the space's curve of all categories, and a category that the file
does not name gets that one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magpie.errors import FailedPrecondition

FORMAT = 1  # of the file; another one is refused
HIT_SPACE = "identity"  # the space whose similarity tells how likely a hit is right


@dataclass(frozen=True)
class Curve:
    """One logistic curve, and how many pairs it was fitted on."""

    slope: float  # at least 0: a more similar product is never less likely
    intercept: float
    pairs: int  # of a photo and a product that search found for it
    right: int  # of these, the same product


@dataclass(frozen=True)
class SpaceCalibration:
    """The curves of one space, and how far they were off on photos that they were not fitted on."""

    everywhere: Curve  # all categories together
    categories: Mapping[str, Curve]
    prior_strength: float | None  # how strongly a category is held to `everywhere`; None: wholly
    # Expected calibration error (Guo et al. 2017, arXiv 1706.04599), [0, 1]: of the similarity itself, taken
    # as a probability, and of the curves.
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class Calibration:
    """The curves of one bundle's spaces."""

    embedder_sha256: str  # of the ONNX file whose similarities were fitted
    spaces: Mapping[str, SpaceCalibration]
    fitted_on: str = ""  # for people: which photos, which catalogue
    _rows: dict[str, tuple[dict[str, int], NDArray[np.float64]]] = field(
        init=False, repr=False, compare=False
    )  # space -> (category -> row, (C + 1, 2) slope and intercept); row 0 is `everywhere`

    def __post_init__(self) -> None:
        rows = {}
        for name, space in self.spaces.items():
            curves = [space.everywhere, *space.categories.values()]
            number = {category: row for row, category in enumerate(space.categories, start=1)}
            rows[name] = (number, np.array([(curve.slope, curve.intercept) for curve in curves], np.float64))
        object.__setattr__(self, "_rows", rows)

    def probability(
        self, space: str, similarity: NDArray[np.floating[Any]], category: str | Sequence[str]
    ) -> NDArray[np.float64]:
        """(N,) cosine similarities and the products' categories, or one for all -> (N,) in (0, 1).

        A category that is not known, as the empty one, gets the curve of all. Raises KeyError for a space
        that is not there.
        """
        number, curves = self._rows[space]
        if isinstance(category, str):
            slope, intercept = curves[number.get(category, 0)]
        else:
            slope, intercept = curves[[number.get(name, 0) for name in category]].T
        # Far out the curve is flat: no overflow, and no probability of exactly 0 or 1.
        exponent = np.clip(slope * np.asarray(similarity, np.float64) + intercept, -30.0, 30.0)
        return np.asarray(1.0 / (1.0 + np.exp(-exponent)), np.float64)

    def highest(self, space: str) -> float:
        """The largest probability that any category's curve gives, at a similarity of 1. Raises KeyError."""
        categories = ["", *self._rows[space][0]]
        return float(self.probability(space, np.ones(len(categories)), categories).max())

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        values = asdict(self)
        del values["_rows"]
        path.write_text(json.dumps({"format": FORMAT, **values}, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path, file: str, embedder_sha256: str) -> Calibration:
        """The calibration of a bundle. `embedder_sha256` is what the embedder's card says.

        Raises FailedPrecondition naming the file if it is missing, of another form, or fitted to another
        embedder.
        """
        path = folder / file
        try:
            values = json.loads(path.read_text())
            if values["format"] != FORMAT:
                raise FailedPrecondition(
                    f"calibration {path} has format {values['format']}, this Magpie reads {FORMAT}"
                )
            spaces = {name: _space(space) for name, space in values["spaces"].items()}
            calibration = cls(values["embedder_sha256"], spaces, values["fitted_on"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise FailedPrecondition(f"calibration {path}: {error!r}") from error
        if calibration.embedder_sha256 != embedder_sha256:
            raise FailedPrecondition(
                f"calibration {path} was fitted to an embedder with SHA-256 {calibration.embedder_sha256}, "
                f"the bundle's has {embedder_sha256}: fit it anew, magpie train calibration"
            )
        if HIT_SPACE not in spaces:
            raise FailedPrecondition(f"calibration {path} lacks the space `{HIT_SPACE}`")
        return calibration


def _space(values: dict[str, Any]) -> SpaceCalibration:
    """Raises ValueError, TypeError or KeyError for what is none."""
    everywhere = _curve(values.pop("everywhere"))
    categories = {name: _curve(curve) for name, curve in values.pop("categories").items()}
    return SpaceCalibration(everywhere, categories, **values)


def _curve(values: dict[str, Any]) -> Curve:
    curve = Curve(**values)
    if not (math.isfinite(curve.slope) and math.isfinite(curve.intercept) and curve.slope >= 0):
        raise ValueError(f"no rising curve: {values}")
    return curve
