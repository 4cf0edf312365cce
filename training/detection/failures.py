"""In what way is a detector wrong? The errors of TIDE (Bolya et al. 2020, arXiv 2008.08115).

A box is judged by its IoU with what is there: from FOUND on it stands for a thing, below NOTHING it stands
for none. TIDE's error of both class and place is counted as false here: such a box helps nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from magpie.geometry import Boxes, iou
from training.detection.verdicts import WRONG, Judged, matched

FOUND, NOTHING = 0.5, 0.1  # IoU; the paper's t_f and t_b

Kind = Literal["missed", "confused", "doubled", "shifted", "false"]
MEANING: dict[Kind, str] = {
    "missed": "a thing that no box stands for, nor a shifted or confused one",
    "confused": "the right place, the wrong class",
    "doubled": "a second box on a thing that a surer one has found",
    "shifted": f"the right class, but IoU only {NOTHING} to {FOUND}",
    "false": "nothing of the kind is there",
}


@dataclass(frozen=True)
class Failure:
    """One error in one photo."""

    kind: Kind
    photo: int  # row of the photo
    box: tuple[
        float, float, float, float
    ]  # fractions; of the thing where it was missed, else of what was found
    label: int  # place in the taxonomy, of `box`
    badness: float  # within a kind, the worst has the largest: the score, or the area of what was missed
    truth: int | None  # row of the thing that is concerned


def failures(photos: Sequence[Judged]) -> list[Failure]:
    """The errors in all photos, of boxes at any score: cut them off first (`Judged.above`). Worst first."""
    found = [failure for row, photo in enumerate(photos) for failure in _of_photo(photo, row)]
    return sorted(found, key=lambda failure: -failure.badness)


def counts(found: Sequence[Failure]) -> dict[Kind, int]:
    """How many there are of each kind, none left out."""
    counted = Counter(failure.kind for failure in found)
    return {kind: counted[kind] for kind in MEANING}


def _of_photo(photo: Judged, row: int) -> list[Failure]:
    takes = matched(photo, FOUND)
    overlap = iou(photo.found, photo.truth)  # (N, M)
    same = photo.labels[:, None] == photo.truth_labels[None, :]
    concerned = set(takes[takes >= 0].tolist())
    result = []
    for box in np.flatnonzero(takes == WRONG).tolist():
        kind, truth = _kind(overlap[box], same[box])
        if kind in ("shifted", "confused"):
            concerned.add(truth)
        score = float(photo.scores[box])
        result.append(Failure(kind, row, _corners(photo.found, box), int(photo.labels[box]), score, truth))
    for thing in sorted(set(range(len(photo.truth))) - concerned):
        corners = _corners(photo.truth, thing)
        area = (corners[2] - corners[0]) * (corners[3] - corners[1])
        result.append(Failure("missed", row, corners, int(photo.truth_labels[thing]), area, thing))
    return result


def _kind(overlap: NDArray[np.float32], same: NDArray[np.bool_]) -> tuple[Kind, int | None]:
    """Of a box that is wrong, by its IoU with each thing (M,) and whether that has its class (M,)."""
    if not len(overlap):
        return "false", None
    own, other = np.where(same, overlap, 0.0), np.where(same, 0.0, overlap)
    if own.max() >= FOUND:  # else `matched` would have given it the thing
        return "doubled", int(own.argmax())
    if other.max() >= FOUND:
        return "confused", int(other.argmax())
    if own.max() >= NOTHING:
        return "shifted", int(own.argmax())
    return "false", None


def _corners(boxes: Boxes, row: int) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = boxes[row].tolist()
    return x0, y0, x1, y1
