"""Losses that several detectors share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.4, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al. 2017, arXiv 1708.02002), summed over logits and targets in {0, 1} of one shape.

    `alpha` weighs the positives.
    """
    plain = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = torch.sigmoid(logits)
    missed = targets * (1 - probability) + (1 - targets) * probability
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    return (weight * missed**gamma * plain).sum()


def varifocal_loss(logits: Tensor, quality: Tensor, *, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Varifocal loss (Zhang et al. 2021, arXiv 2008.13367), summed over logits and qualities of one shape.

    A positive learns its quality in (0, 1], weighed by it; negatives, quality 0, are weighed down once easy.
    """
    probability = torch.sigmoid(logits.detach())
    weight = torch.where(quality > 0, quality, alpha * probability**gamma)
    return (weight * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")).sum()


def giou_loss(found: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - GIoU (Rezatofighi et al. 2019, arXiv 1902.09630) of paired corner boxes (N, 4), summed.

    `weight` (N,) of each. 0 where they agree, near 2 where they are far apart.
    """

    def area(top_left: Tensor, bottom_right: Tensor) -> Tensor:
        return (bottom_right - top_left).clamp(min=0).prod(dim=1)

    shared = area(torch.maximum(found[:, :2], truth[:, :2]), torch.minimum(found[:, 2:], truth[:, 2:]))
    union = area(found[:, :2], found[:, 2:]) + area(truth[:, :2], truth[:, 2:]) - shared
    hull = area(torch.minimum(found[:, :2], truth[:, :2]), torch.maximum(found[:, 2:], truth[:, 2:]))
    giou = shared / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)
    return ((1 - giou) if weight is None else weight * (1 - giou)).sum()
