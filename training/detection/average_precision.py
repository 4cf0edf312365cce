"""How well boxes are found: average precision at one IoU, and recall among the best few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magpie.geometry import Boxes, iou


@dataclass(frozen=True)
class Judged:
    """One photo: what was found, best first, and what is there. `ignored` boxes may be found or not."""

    found: Boxes  # (N, 4)
    scores: NDArray[np.float32]  # (N,), falling
    truth: Boxes  # (M, 4)
    ignored: Boxes  # (K, 4)


def verdicts(photo: Judged, iou_threshold: float) -> NDArray[np.int8]:
    """(N,): 1 right, 0 wrong or found before, -1 an ignored thing.

    Best first, each box takes the free truth that it overlaps most.
    """
    overlap = iou(photo.found, photo.truth)
    besides = iou(photo.found, photo.ignored).max(axis=1, initial=0.0)
    free = np.ones(len(photo.truth), bool)
    answers = np.zeros(len(photo.found), np.int8)
    for row in range(len(photo.found)):
        candidates = np.where(free, overlap[row], -1.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= iou_threshold:
            free[best] = False
            answers[row] = 1
        elif besides[row] >= iou_threshold:
            answers[row] = -1
    return answers


def average_precision(photos: Sequence[Judged], iou_threshold: float = 0.5) -> float:
    """Area under the precision-recall curve, precision made monotone (PASCAL VOC since 2010)."""
    answers = np.concatenate([verdicts(photo, iou_threshold) for photo in photos])
    scores = np.concatenate([photo.scores for photo in photos])
    order = np.argsort(-scores, kind="stable")
    hits = answers[order][answers[order] >= 0]
    total = sum(len(photo.truth) for photo in photos)
    if not total or not len(hits):
        return 0.0
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * hits).sum() / total)  # each hit raises recall by 1 / total


def recall_at(photos: Sequence[Judged], count: int, iou_threshold: float = 0.5) -> float:
    """Share of what is there that the best `count` boxes of its photo find."""
    found = 0
    for photo in photos:
        best = Judged(photo.found[:count], photo.scores[:count], photo.truth, photo.ignored)
        found += int((verdicts(best, iou_threshold) == 1).sum())
    return found / max(1, sum(len(photo.truth) for photo in photos))


def best_f1_threshold(photos: Sequence[Judged], iou_threshold: float = 0.5) -> tuple[float, float]:
    """(score, F1): the score cut-off with the best F1 over all photos, and that F1."""
    answers = np.concatenate([verdicts(photo, iou_threshold) for photo in photos])
    scores = np.concatenate([photo.scores for photo in photos])
    judged = answers >= 0
    order = np.argsort(-scores[judged], kind="stable")
    hits, scores = answers[judged][order], scores[judged][order]
    total = sum(len(photo.truth) for photo in photos)
    if not len(hits):
        return 1.0, 0.0
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + total)
    best = int(f1.argmax())
    return float(scores[best]), float(f1[best])
