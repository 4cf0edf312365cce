"""An anchor-free one-stage detector for small CPUs, in the class of PicoDet and NanoDet-Plus.

EfficientNet-Lite0, a light pyramid, and at each point of four maps a score for each class and the distances
to a box's four sides (FCOS, Tian et al. 2019, arXiv 1904.01355). Points are assigned by task alignment;
scores learn the IoU of their box (varifocal loss, Zhang et al. 2021, arXiv 2008.13367).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.detection.contract import Network, Targets
from training.detection.losses import giou_loss, varifocal_loss
from training.detection.task_alignment import assign
from training.models.backbone import Lite0Backbone
from training.models.pyramid import Pyramid, separable

STRIDES = (8, 16, 32, 64)
PRIOR = 0.01  # probability that an untrained point fires (Lin et al. 2017, arXiv 1708.02002)
LARGEST_EXPONENT = 4.0  # exp of it: no side is further away than 55 strides
BOX_WEIGHT = 2.0


@dataclass(frozen=True)
class ModernShape:
    """How wide, and what of the backbone learns."""

    width: int = 96  # channels of the pyramid
    frozen_stages: int = 2  # of the backbone's four; strides 4 and 8 stay as they are


class Modern(Network):
    """`size` is a multiple of 64, or of 32 with the coarsest map rounded up."""

    points: Tensor  # (A, 2), fractions
    strides: Tensor  # (A, 1), fractions

    def __init__(self, size: int, classes: int, shape: ModernShape, *, pretrained: bool = True) -> None:
        super().__init__(size, classes)
        self.backbone = Lite0Backbone(pretrained=pretrained, frozen_stages=shape.frozen_stages)
        self.pyramid = Pyramid(self.backbone.channels, shape.width)
        self.towers = nn.ModuleList(
            nn.Sequential(separable(shape.width, shape.width), separable(shape.width, shape.width))
            for _ in STRIDES
        )
        log_odds = -math.log((1 - PRIOR) / PRIOR)
        self.score_heads = nn.ModuleList(_head(shape.width, classes, log_odds) for _ in STRIDES)
        self.box_heads = nn.ModuleList(_head(shape.width, 4, math.log(2.0)) for _ in STRIDES)
        points, strides = grid(size)
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def features(self, pictures: Tensor) -> list[Tensor]:
        return self.pyramid(self.backbone(pictures))  # type: ignore[no-any-return]

    def _predicted(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (N, A, 4) and score logits (N, A, C)."""
        logits, sides = [], []
        for level, features in enumerate(maps):
            tower = self.towers[level](features)
            logits.append(self.score_heads[level](tower).flatten(2))
            sides.append(self.box_heads[level](tower).flatten(2))
        distances = (
            torch.cat(sides, dim=2).transpose(1, 2).float().clamp(max=LARGEST_EXPONENT).exp() * self.strides
        )
        boxes = torch.cat([self.points - distances[..., :2], self.points + distances[..., 2:]], dim=2)
        return boxes, torch.cat(logits, dim=2).transpose(1, 2).float()

    def found(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        boxes, logits = self._predicted(maps)
        return boxes.clamp(0.0, 1.0), logits.sigmoid()

    def losses_on(self, maps: Sequence[Tensor], targets: Sequence[Targets]) -> Mapping[str, Tensor]:
        boxes, logits = self._predicted(maps)
        scores = logits.detach().sigmoid()
        assigned = [
            assign(scores[row], boxes[row].detach(), self.points, of_one)
            for row, of_one in enumerate(targets)
        ]
        quality = torch.stack([one.quality for one in assigned])
        judged = torch.stack([one.judged for one in assigned])
        total = quality.sum().clamp(min=1.0)
        found, truth, weight = [], [], []
        for row, (one, of_one) in enumerate(zip(assigned, targets, strict=True)):
            positive = one.box >= 0
            found.append(boxes[row, positive])
            truth.append(of_one.boxes[one.box[positive]])
            weight.append(one.quality[positive].sum(dim=1))
        return {
            "class": varifocal_loss(logits[judged], quality[judged]) / total,
            "box": BOX_WEIGHT * giou_loss(torch.cat(found), torch.cat(truth), torch.cat(weight)) / total,
        }

    def stages(self) -> list[nn.Module]:
        return [self.backbone.stem, *self.backbone.stages]

    def float_layers(self) -> tuple[str, ...]:
        return ("score_heads", "box_heads")


def grid(size: int) -> tuple[Tensor, Tensor]:
    """The points (A, 2: x, y) of all maps and their strides (A, 1), as fractions. Order: map, row, column."""
    points, strides = [], []
    for stride in STRIDES:
        cells = -(-size // stride)
        middles = (torch.arange(cells) + 0.5) * stride / size
        y, x = torch.meshgrid(middles, middles, indexing="ij")
        points.append(torch.stack([x, y], dim=2).reshape(-1, 2))
        strides.append(torch.full((cells * cells, 1), stride / size))
    return torch.cat(points), torch.cat(strides)


def _head(inputs: int, outputs: int, bias: float) -> nn.Conv2d:
    head = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(head.weight, std=0.01)
    head.bias = nn.Parameter(torch.full((outputs,), bias))
    return head
