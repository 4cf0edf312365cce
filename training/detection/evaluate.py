"""One detector on one set: COCO's figures, the score to cut off at, the errors by kind, the time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.detection.box_sets import LabelledSet
from training.detection.coco_metrics import CocoFigures, coco_figures
from training.detection.contender import Contender
from training.detection.failures import Failure, counts, failures
from training.detection.labelled_image import LabelledImage
from training.detection.measure import judge, timed
from training.detection.verdicts import Judged, best_f1_threshold

SERVED = "AP50 as served"


@dataclass(frozen=True)
class SetResult:
    """What a detector did on a set. `shown` holds the boxes that a customer would see."""

    detector: str
    set: LabelledSet
    figures: CocoFigures  # each class looked for by itself
    served: CocoFigures  # a box has one class, as in a search
    best_f1: float  # at IoU .5
    best_from: float  # the score of it
    shown_from: float  # score; the card's, else `best_from`
    shown: Sequence[Judged]  # the boxes from `shown_from` on, photo by photo
    failures: Sequence[Failure]  # of `shown`, the worst first
    milliseconds: float  # median, from decoded photo to boxes, one thread

    @property
    def overview(self) -> dict[str, float]:
        """The figures over all classes."""
        return {**self.figures.summary(), SERVED: self.served.ap50}

    @property
    def by_class(self) -> dict[str, dict[str, float]]:
        """Class -> its figures."""
        return {
            name: {**values, SERVED: self.served.by_class[name]["AP50"]}
            for name, values in self.figures.by_class.items()
        }

    def summary(self) -> dict[str, Any]:
        """JSON-ready; what nothing is there for is None."""
        found: dict[str, Any] = {
            **self.overview,
            "best F1": self.best_f1,
            "at score": self.best_from,
            "ms": self.milliseconds,
            "by class": self.by_class,
            "by size": self.figures.by_size,
            "failures": {"from score": self.shown_from, **counts(self.failures)},
        }
        return {key: plain(value) for key, value in found.items()}


def evaluate(one: Contender, photos: LabelledSet, advance: Callable[[], None] = lambda: None) -> SetResult:
    """Detect in every photo of a set, whose taxonomy is the detector's. `advance` is called for each."""
    seconds: list[float] = []
    judged = judge(timed(one.detect, seconds), _counted(photos.images, advance))
    served = coco_figures(judged, photos.taxonomy)
    same = one.in_each_class is one.detect
    figures = served if same else coco_figures(judge(one.in_each_class, photos.images), photos.taxonomy)
    best_from, best_f1 = best_f1_threshold(judged)
    shown_from = best_from if one.shown_from is None else one.shown_from
    shown = [photo.above(shown_from) for photo in judged]
    return SetResult(
        detector=one.title,
        set=photos,
        figures=figures,
        served=served,
        best_f1=best_f1,
        best_from=best_from,
        shown_from=shown_from,
        shown=shown,
        failures=failures(shown),
        milliseconds=1000 * float(np.median(seconds)) if seconds else math.nan,
    )


def _counted(images: Sequence[LabelledImage], advance: Callable[[], None]) -> Iterator[LabelledImage]:
    for image in images:
        yield image
        advance()


def plain(value: Any) -> Any:
    """For JSON, which knows no NaN: None; other numbers to four digits."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    return value
