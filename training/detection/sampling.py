"""Which of the many boxes that hold nothing a step learns from."""

from __future__ import annotations

import torch
from torch import Tensor


def hard_negatives(loss: Tensor, target: Tensor, ratio: float = 3.0, least: int = 8) -> Tensor:
    """SSD's mining: the negatives of largest loss, `ratio` for each positive of the same picture.

    loss (N, A) of calling each anchor empty, target (N, A) in {1 positive, 0 negative, -1 not judged} ->
    (N, A) bool. A picture without positives gives its `least` hardest.
    """
    negative = target == 0
    wanted = (ratio * (target == 1).sum(dim=1, keepdim=True)).clamp(min=least)
    order = loss.detach().masked_fill(~negative, -torch.inf).argsort(dim=1, descending=True)
    place = order.argsort(dim=1)  # of each anchor, among its picture's by falling loss
    return negative & (place < wanted)


def balanced(
    target: Tensor, count: int, positive_share: float, generator: torch.Generator | None = None
) -> Tensor:
    """Random rows, as in the R-CNN family: at most `positive_share` of `count` positives, then negatives.

    target (A,) in {1, 0, -1} -> (A,) bool. Where negatives are few the sample is smaller.
    """
    chosen = torch.zeros_like(target, dtype=torch.bool)
    positives = _some((target == 1).nonzero()[:, 0], round(count * positive_share), generator)
    chosen[positives] = True
    chosen[_some((target == 0).nonzero()[:, 0], count - len(positives), generator)] = True
    return chosen


def _some(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator).to(rows.device)[:count]]
