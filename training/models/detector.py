"""The product detector: EfficientNet-Lite0, a light feature pyramid, and an SSD head at strides 16 to 128."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.detection.anchors import PRODUCT_ANCHORS, anchors
from training.detection.box_coding import decode
from training.models.backbone import Lite0Backbone

INPUT_SIZE = 320  # px; the anchors belong to it
PRIOR = 0.01  # probability that an untrained anchor fires (Lin et al. 2017)


def separable(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, padding: int = 1
) -> nn.Sequential:
    """Depthwise then pointwise convolution, each with batch norm and ReLU6, which quantise well."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, stride, padding, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class Detector(nn.Module):
    """(N, 3, 320, 320) -> score logits (N, A) and box offsets (N, A, 4) against `self.anchors` (A, 4)."""

    anchors: Tensor

    def __init__(self, *, pretrained: bool = True, frozen_stages: int = 2, width: int = 112) -> None:
        super().__init__()
        self.backbone = Lite0Backbone(pretrained=pretrained, frozen_stages=frozen_stages)
        _, c4, c5 = self.backbone.channels
        self.lateral4 = nn.Sequential(nn.Conv2d(c4, width, 1, bias=False), nn.BatchNorm2d(width))
        self.lateral5 = nn.Sequential(nn.Conv2d(c5, width, 1, bias=False), nn.BatchNorm2d(width))
        self.smooth4 = separable(width, width, kernel=5, padding=2)
        self.down6 = separable(width, width, stride=2)  # 10 -> 5 cells
        self.down7 = separable(width, width, stride=2)  # 5 -> 3 cells
        self.towers = nn.ModuleList(
            nn.Sequential(separable(width, width, kernel=5, padding=2), separable(width, width))
            for _ in PRODUCT_ANCHORS
        )
        shapes = [len(level.shapes) for level in PRODUCT_ANCHORS]
        log_odds = -math.log((1 - PRIOR) / PRIOR)
        self.score_heads = nn.ModuleList(_head(width, count, log_odds) for count in shapes)
        self.box_heads = nn.ModuleList(_head(width, 4 * count, 0.0) for count in shapes)
        self.register_buffer("anchors", torch.from_numpy(anchors()), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _, c4, c5 = self.backbone(x)
        p5 = self.lateral5(c5)
        p4 = self.smooth4(self.lateral4(c4) + F.interpolate(p5, scale_factor=2.0, mode="nearest"))
        p6 = self.down6(p5)
        p7 = self.down7(p6)
        scores, offsets = [], []
        for level, features in enumerate((p4, p5, p6, p7)):
            tower = self.towers[level](features)
            scores.append(_by_anchor(self.score_heads[level](tower), 1))
            offsets.append(_by_anchor(self.box_heads[level](tower), 4))
        return torch.cat(scores, dim=1).squeeze(2), torch.cat(offsets, dim=1)


class ServedDetector(nn.Module):
    """What is exported: (N, 3, 320, 320) -> boxes (N, A, 4), fractions of the square; scores (N, A, 1)."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, offsets = self.detector(x)
        boxes = decode(offsets, self.detector.anchors).clamp(0.0, 1.0)
        return boxes, torch.sigmoid(logits).unsqueeze(2)


def _head(inputs: int, outputs: int, bias: float) -> nn.Conv2d:
    head = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(head.weight, std=0.01)
    head.bias = nn.Parameter(torch.full((outputs,), bias))
    return head


def _by_anchor(x: Tensor, values: int) -> Tensor:
    """(N, shapes * values, H, W) -> (N, H * W * shapes, values), in the order of the anchors."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)
