"""Which anchor is to find which box."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.4
COVERED = 0.5  # share of an anchor inside a region that makes it part of the region


class Matches(NamedTuple):
    """For every anchor: 1 it must fire, 0 it must not, -1 not judged; and the box that it is to find."""

    target: Tensor  # (A,) int64
    box: Tensor  # (A,) int64, index into the boxes; meaningful where target is 1


def match(
    anchors: Tensor,
    boxes: Tensor,
    ignored: Tensor,
    *,
    positive: float = POSITIVE_IOU,
    negative: float = NEGATIVE_IOU,
) -> Matches:
    """Match corner anchors (A, 4) to boxes (N, 4) by IoU; every box gets at least its best anchor.

    An anchor fires from an IoU of `positive`; from `negative` up to there it is not judged.

    Anchors mostly inside an `ignored` region (M, 4) are not judged, save those mostly inside a box: a part of
    a known product is not a product. Of an anchor that reaches out of the picture, what is inside counts.
    """
    target = torch.zeros(len(anchors), dtype=torch.long, device=anchors.device)
    chosen = torch.zeros_like(target)
    in_box = torch.zeros_like(target, dtype=torch.bool)
    visible = anchors.clamp(0.0, 1.0)
    if len(boxes):
        overlap = iou_and_cover(anchors, boxes)[0]
        best, chosen = overlap.max(dim=1)
        target[best >= negative] = -1
        in_box = iou_and_cover(visible, boxes)[1].max(dim=1).values >= COVERED
    if len(ignored):
        in_ignored = iou_and_cover(visible, ignored)[1].max(dim=1).values >= COVERED
        target[in_ignored & ~in_box] = -1
    if len(boxes):
        target[best >= positive] = 1
        favourites = overlap.argmax(dim=0)
        target[favourites] = 1
        chosen[favourites] = torch.arange(len(boxes), device=anchors.device)
    return Matches(target, chosen)


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points (A, 2) lie in which boxes (N, 4): (A, N) bool."""
    return ((points[:, None] > boxes[None, :, :2]) & (points[:, None] < boxes[None, :, 2:])).all(dim=2)


def iou_and_cover(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """IoU (A, N), and the share of each anchor's area that lies in each box (A, N)."""
    sides = torch.minimum(anchors[:, None, 2:], boxes[None, :, 2:]) - torch.maximum(
        anchors[:, None, :2], boxes[None, :, :2]
    )
    shared = sides.clamp(min=0).prod(dim=2)
    anchor_area = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)[:, None]
    box_area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)[None, :]
    return shared / (anchor_area + box_area - shared).clamp(min=1e-9), shared / anchor_area.clamp(min=1e-9)
