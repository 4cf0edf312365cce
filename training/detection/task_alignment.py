"""Which points are to find which box: task-aligned assignment (Feng et al. 2021, TOOD, arXiv 2108.07755).

A point is good for a box if it already gives the class a high score and the box a high IoU: what is learnt
and how boxes are ranked at the end agree.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from training.detection.contract import Targets
from training.detection.matching import COVERED, inside, iou_and_cover

POINTS_A_BOX = 10
SCORE_POWER, IOU_POWER = 1.0, 6.0


class Assigned(NamedTuple):
    """For every point of one picture."""

    quality: Tensor  # (A, C): the score that it should have, 0 for classes that are not there
    box: Tensor  # (A,) int64, index into the boxes, or -1: it has none to find
    judged: Tensor  # (A,) bool: False inside ignored regions


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, points: Tensor, targets: Targets) -> Assigned:
    """One picture's points (A, 2), their scores (A, C) and boxes (A, 4) against its targets.

    Candidates are the points inside a box, and the nearest one of a box without any. The best point of a box
    is to reach the best IoU as its score, the others in proportion; a point that two boxes want goes to the
    one that it overlaps more.
    """
    count = len(points)
    quality = torch.zeros_like(scores)
    chosen = torch.full((count,), -1, dtype=torch.long, device=scores.device)
    truth = targets.boxes
    if len(truth):
        overlap, _ = iou_and_cover(boxes, truth)  # (A, N)
        within = inside(points, truth)
        lonely = (~within.any(dim=0)).nonzero()[:, 0]
        centres = (truth[lonely, :2] + truth[lonely, 2:]) / 2
        within[torch.cdist(points, centres).argmin(dim=0), lonely] = True
        alignment = scores[:, targets.labels] ** SCORE_POWER * overlap**IOU_POWER * within
        # Before anything overlaps, the points nearest to the box's middle are as good as any.
        alignment = alignment + 1e-9 * within / (1.0 + torch.cdist(points, (truth[:, :2] + truth[:, 2:]) / 2))
        best = alignment.topk(min(POINTS_A_BOX, count), dim=0).indices
        wanted = torch.zeros_like(within).scatter_(0, best, True) & within
        contested = torch.where(wanted, overlap + 1e-6, torch.zeros_like(overlap))
        value, of_point = contested.max(dim=1)
        positive = value > 0
        chosen[positive] = of_point[positive]
        mine = torch.zeros_like(wanted)
        mine[positive, of_point[positive]] = True
        alignment = alignment * mine
        most = alignment.max(dim=0).values.clamp(min=1e-12)
        reach = (overlap * mine).max(dim=0).values
        share = (alignment / most * reach).max(dim=1).values
        rows = positive.nonzero()[:, 0]
        quality[rows, targets.labels[chosen[rows]]] = share[rows]
    judged = torch.ones(count, dtype=torch.bool, device=scores.device)
    if len(targets.ignored):
        covered = iou_and_cover(boxes, targets.ignored)[1].max(dim=1).values >= COVERED
        known = inside(points, truth).any(dim=1) if len(truth) else torch.zeros_like(covered)
        judged = ~covered & ~inside(points, targets.ignored).any(dim=1) | known
    return Assigned(quality, chosen, judged)
