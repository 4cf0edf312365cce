"""Right or wrong, box by box, and the score from which a detector's boxes are worth showing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from magpie.geometry import Boxes, iou
from training.detection.labelled_image import Labels


@dataclass(frozen=True)
class Judged:
    """One photo: what was found, best first, and what is there. `ignored` regions may be found or not."""

    found: Boxes  # (N, 4)
    scores: NDArray[np.float32]  # (N,), falling
    labels: Labels  # (N,)
    truth: Boxes  # (M, 4)
    truth_labels: Labels  # (M,)
    ignored: Boxes  # (K, 4)

    def above(self, score: float) -> Judged:
        """With only the boxes that are at least so sure."""
        sure = self.scores >= score
        return replace(self, found=self.found[sure], scores=self.scores[sure], labels=self.labels[sure])


WRONG, UNJUDGED = -1, -2  # what a box takes that takes no truth


def matched(photo: Judged, iou_threshold: float) -> NDArray[np.intp]:
    """(N,): the row of the truth that each box takes; WRONG; or UNJUDGED, in an ignored region.

    Best first, each box takes the free truth of its class that it overlaps most. What takes none and lies in
    an ignored region by a share of `iou_threshold` of its own area is not judged, as with COCO's crowds.
    """
    overlap = np.where(
        photo.labels[:, None] == photo.truth_labels[None, :], iou(photo.found, photo.truth), np.float32(0)
    )
    besides = share_inside(photo.found, photo.ignored).max(axis=1, initial=0.0)
    free = np.ones(len(photo.truth), bool)
    takes = np.full(len(photo.found), WRONG, np.intp)
    for row in range(len(photo.found)):
        candidates = np.where(free, overlap[row], -1.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= iou_threshold:
            free[best] = False
            takes[row] = best
        elif besides[row] >= iou_threshold:
            takes[row] = UNJUDGED
    return takes


def verdicts(photo: Judged, iou_threshold: float) -> NDArray[np.int8]:
    """(N,): 1 right, 0 wrong or found before, -1 not judged; see `matched`."""
    takes = matched(photo, iou_threshold)
    return np.select([takes >= 0, takes == WRONG], [1, 0], -1).astype(np.int8)


def share_inside(boxes: Boxes, regions: Boxes) -> NDArray[np.float32]:
    """How much of each box's area lies in each region: (N, 4), (M, 4) -> (N, M), in [0, 1]."""
    top_left = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    common = np.clip(bottom_right - top_left, 0.0, None).prod(axis=2)
    area = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(axis=1)[:, None]
    share: NDArray[np.float32] = np.zeros_like(common)
    np.divide(common, area, out=share, where=area > 0)
    return share


def best_f1_threshold(photos: Sequence[Judged], iou_threshold: float = 0.5) -> tuple[float, float]:
    """(score, F1): the score cut-off with the best F1 over all photos, and that F1; (1, 0) where none is."""
    if not photos:
        return 1.0, 0.0
    answers = np.concatenate([verdicts(photo, iou_threshold) for photo in photos])
    scores = np.concatenate([photo.scores for photo in photos])
    judged = answers >= 0
    order = np.argsort(-scores[judged], kind="stable")
    hits, scores = answers[judged][order], scores[judged][order]
    total = sum(len(photo.truth) for photo in photos)
    if not len(hits):
        return 1.0, 0.0
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + total)
    f1[:-1][scores[:-1] == scores[1:]] = 0.0  # no cut-off lies between equal scores
    best = int(f1.argmax())
    return float(scores[best]), float(f1[best])
