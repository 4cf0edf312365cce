"""The learning rate over a run: linear warm-up, then one of three ways down.

`cosine`: half a cosine; `sgdr`: cosines that restart, each cycle longer (Loshchilov and Hutter 2017, arXiv
1608.03983); `step`: divided at milestones, as in step annealing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import optim
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class Schedule:
    """Epochs and what the rate does over them."""

    epochs: int = 12
    kind: Literal["cosine", "sgdr", "step"] = "cosine"
    warmup: int = 60  # steps
    floor: float = 0.01  # of the rate, at the bottom
    milestones: tuple[float, ...] = (0.5, 0.75, 0.9)  # `step`: shares of the run at which the rate falls
    gamma: float = 0.3  # `step`: to this part of what it was
    cycle: float = 4.0  # `sgdr`: epochs of the first cycle
    longer: float = 2.0  # `sgdr`: each cycle is so many times as long as the one before

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.warmup < 0 or self.cycle <= 0 or self.longer < 1:
            raise ValueError("epochs and cycle must be above 0, warmup at least 0, longer at least 1")

    def rate(self, optimizer: optim.Optimizer, steps: int) -> LambdaLR:
        """Scale every group's rate once a step; `steps` are those of an epoch."""
        ways: dict[str, Callable[[int], float]] = {
            # begins where the warm-up ends
            "cosine": lambda step: self._cosine(
                (step - self.warmup) / max(1, self.epochs * steps - self.warmup)
            ),
            "sgdr": lambda step: self._sgdr(step / steps),
            "step": lambda step: self.gamma ** sum(step / steps / self.epochs >= m for m in self.milestones),
        }
        way = ways[self.kind]

        def scale(step: int) -> float:
            return (step + 1) / self.warmup if step < self.warmup else way(step)

        return LambdaLR(optimizer, scale)

    def _cosine(self, progress: float) -> float:
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def _sgdr(self, epoch: float) -> float:
        start, length = 0.0, self.cycle
        while epoch >= start + length:
            start, length = start + length, length * self.longer
        return self._cosine((epoch - start) / length)
