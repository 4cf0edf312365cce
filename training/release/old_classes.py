"""A detector that learns new classes must still find the old ones: AP50, class by class, before and after."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.vision.bundle import Bundle
from training.detection.coco_metrics import coco_figures
from training.detection.measure import judge, served
from training.detection.recipe import BoxData
from training.detection.runs import onnx_run
from training.detection.sources import annotated
from training.evaluation.suite import BoxSet

MARGIN = 0.01  # of AP50


@dataclass(frozen=True)
class ClassLoss:
    """A class that a candidate finds worse."""

    set: str
    label: str
    before: float  # AP50
    after: float

    def __str__(self) -> str:
        return (
            f"{self.set}: AP50 of `{self.label}` {self.before:.3f} -> {self.after:.3f} "
            f"({self.after - self.before:+.3f}): fell by more than {MARGIN:.2f}"
        )


def lost_classes(current: Bundle, candidate: Bundle, sets: Sequence[BoxSet], data: Path) -> list[ClassLoss]:
    """Classes of the detector in place that the candidate's finds worse by more than MARGIN.

    Raises FailedPrecondition if the candidate's taxonomy lacks a class, or a set cannot be used.
    """
    known, new = _taxonomy(current), _taxonomy(candidate)
    missing = [label for label in known if label not in new]
    if missing:
        raise FailedPrecondition(
            f"the candidate's detector no longer knows {', '.join(missing)}, which answers name as labels"
        )
    found = []
    for one in sets:
        # The one in place can be neither right nor wrong where a class lies that it never learnt.
        old = replace(one, boxes=_without(one.boxes, set(new) - set(known)))
        before, after = _ap50(current, old, data), _ap50(candidate, one, data)
        found += [
            ClassLoss(one.name, label, before[label], after[label])
            for label in known
            if before[label] - after[label] > MARGIN
        ]
    return found


def _taxonomy(bundle: Bundle) -> tuple[str, ...]:
    assert bundle.detector_card.detection is not None
    return bundle.detector_card.detection.taxonomy


def _without(boxes: BoxData, classes: Collection[str]) -> BoxData:
    """The same, with these classes ignored, whatever their categories are called."""
    categories = [category for category, label in boxes.classes.items() if label in classes]
    return replace(boxes, ignored=(*boxes.ignored, *sorted(classes), *categories))


def _ap50(bundle: Bundle, one: BoxSet, data: Path) -> dict[str, float]:
    """Class -> AP50, of a bundle's own taxonomy."""
    card, taxonomy = bundle.detector_card, _taxonomy(bundle)
    try:
        images = annotated(one.boxes, data, taxonomy)
    except InvalidArgument as error:
        raise FailedPrecondition(f"the boxes of `{one.name}` cannot be used: {error}") from error
    detect = served(onnx_run(card.verified_model(bundle.folder)), card.input, taxonomy)
    figures = coco_figures(judge(detect, images), taxonomy).by_class
    return {label: values["AP50"] for label, values in figures.items()}
