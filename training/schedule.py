"""The learning rate over a run: linear warm-up, then a half cosine (Loshchilov and Hutter 2017) to 1 %."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, *, warmup: int, total: int, floor: float = 0.01) -> LambdaLR:
    """Scale every group's rate; `warmup` and `total` are in steps."""

    def scale(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, scale)
