"""Are the annotations complete? What a detector is sure of and nobody annotated is a candidate for a label.

A thing without its box teaches that it is background: one reason for low recall, and the cheapest to mend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from magpie.geometry import iou
from training.datasets.boxed_photo import BoxedPhoto
from training.detection.measure import Detect
from training.detection.verdicts import share_inside

COVERED = 0.5  # share of a box inside an ignored region that makes it part of it


@dataclass(frozen=True)
class Suspect:
    """A box that no annotation matches."""

    photo: int  # row of the photo
    box: tuple[float, float, float, float]  # fractions
    label: str
    score: float


def suspects(
    photos: Sequence[BoxedPhoto],
    detect: Detect,
    taxonomy: Sequence[str],
    *,
    min_score: float = 0.5,
    iou_threshold: float = 0.5,
    advance: Callable[[], None] = lambda: None,
) -> list[Suspect]:
    """The surest first: boxes from `min_score` on, with IoU below `iou_threshold` to every annotated box.

    Of whatever class that box is: another name for a thing is no missing annotation. `advance` is called for
    each photo.
    """
    found = []
    for row, photo in enumerate(photos):
        boxes, scores, labels = detect(photo.load())
        ignored = np.array(photo.ignored, np.float32).reshape(-1, 4)
        matched = iou(boxes, photo.boxes).max(axis=1, initial=0.0) >= iou_threshold
        matched |= share_inside(boxes, ignored).max(axis=1, initial=0.0) >= COVERED
        found += [
            Suspect(row, tuple(box.tolist()), taxonomy[label], float(score))
            for box, score, label in zip(boxes[~matched], scores[~matched], labels[~matched], strict=True)
            if score >= min_score
        ]
        advance()
    return sorted(found, key=lambda suspect: -suspect.score)
