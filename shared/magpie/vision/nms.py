"""Greedy non-maximum suppression, over all classes together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from magpie.geometry import Boxes, iou

CANDIDATES = 300  # only so many of the best are looked at, as SSD does; a photo has far fewer objects


def nms(
    boxes: Boxes, scores: NDArray[np.float32], iou_threshold: float, limit: int
) -> NDArray[np.intp]:  # (K,), K <= limit
    """Indices of the boxes that stay, best first; equal scores keep their order.

    A box goes when its IoU with a better one that stays is above `iou_threshold`. boxes (N, 4), scores (N,).
    The cost is one row of IoU for each box that stays, not a matrix.
    """
    waiting = np.argsort(-scores, kind="stable")[:CANDIDATES]
    kept: list[np.intp] = []
    while waiting.size and len(kept) < limit:
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[iou(boxes[best : best + 1], boxes[waiting])[0] <= iou_threshold]
    return np.array(kept, np.intp)
