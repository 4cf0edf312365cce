"""DSOD: a detector that learns from scratch (Shen et al. 2017, arXiv 1708.01241).

    stem -> dense blocks 1 and 2 -> transition without pooling -> dense blocks 3 and 4 -> six maps

Every layer sees the maps of all layers before it, so the loss reaches them all without pretraining. Each of
the coarser maps is half learnt, half handed down from the finer one: the dense prediction structure. Layers
are batch norm, ReLU, convolution. With stem 64, growth 48, bottleneck 192 and 300 px it is the paper's
DS/64-192-48-1; the defaults here have about one million parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.detection.anchors import levels
from training.models.detectors.anchor_head import AnchorHead, AnchorNetwork

STRIDES = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class DsodShape:
    """How wide and how deep. The paper's: 64, 48, 4, (6, 8, 8, 8), 1.0, 256."""

    stem: int = 32  # channels of the stem's first two layers; the third has twice as many
    growth: int = 16  # channels that a dense layer adds
    bottleneck: int = 4  # the 1 x 1 convolution before it gives so many times `growth`
    layers: tuple[int, ...] = (6, 8, 8, 8)  # of the four dense blocks
    compression: float = 0.5  # share of the channels that a transition keeps; 1.0: all
    predictor: int = 128  # channels of the maps that are predicted from, halved at each of the coarsest three


class DenseLayer(nn.Sequential):
    """Adds `growth` channels to what it is given."""

    def __init__(self, inputs: int, growth: int, bottleneck: int) -> None:
        super().__init__(
            *_layer(inputs, bottleneck * growth, 1), *_layer(bottleneck * growth, growth, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return torch.cat([x, added], dim=1)


class HandDown(nn.Module):
    """A coarser map of the dense prediction structure: half of it is learnt, half is handed down."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.learnt = nn.Sequential(*_layer(inputs, half, 1), *_layer(half, half, 3, stride=2, padding=1))
        self.handed = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), *_layer(inputs, outputs - half, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.learnt(x), self.handed(x)], dim=1)


class Dsod(AnchorNetwork):
    """`size` is a multiple of 32, such as 320, 256 or 224."""

    def __init__(self, size: int, classes: int, shape: DsodShape) -> None:
        super().__init__(size, classes)
        first = shape.stem
        self.stem = nn.Sequential(
            *_convolution(3, first, stride=2),
            *_convolution(first, first),
            *_convolution(first, 2 * first),
            nn.MaxPool2d(2),
        )
        channels = 2 * first
        blocks = []
        for count in shape.layers:
            block: list[nn.Module] = []
            for _ in range(count):
                block.append(DenseLayer(channels, shape.growth, shape.bottleneck))
                channels += shape.growth
            kept = int(channels * shape.compression)
            block += _layer(channels, kept, 1)  # the transition; what pools comes after it
            channels = kept
            blocks.append((nn.Sequential(*block), channels))
        (self.block1, _), (self.block2, finest), (self.block3, _), (self.block4, deepest) = blocks
        width = shape.predictor
        self.finest = nn.Sequential(*_layer(finest, width // 2, 1))  # handed down to the next
        self.deep = nn.Sequential(*_layer(deepest, width - width // 2, 1))
        widths = [finest, width, width, width // 2, width // 2, width // 2]
        self.coarser = nn.ModuleList(HandDown(inputs, outputs) for inputs, outputs in pairwise(widths[1:]))
        self.normalised = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(c), nn.ReLU()) for c in widths)
        sides = [-(-size // stride) for stride in STRIDES]
        self.head = AnchorHead(widths, levels(sides), classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                nn.init.kaiming_normal_(module.weight)

    def features(self, pictures: Tensor) -> list[Tensor]:
        fine = self.block2(F.max_pool2d(self.block1(self.stem(pictures)), 2))  # stride 8
        pooled = F.max_pool2d(fine, 2)
        deep = self.block4(self.block3(pooled))  # no pooling between them
        maps = [fine, torch.cat([self.finest(pooled), self.deep(deep)], dim=1)]
        for coarser in self.coarser:
            maps.append(coarser(maps[-1]))
        return [normal(x) for normal, x in zip(self.normalised, maps, strict=True)]

    def stages(self) -> list[nn.Module]:
        return []


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> list[nn.Module]:
    """The stem's order: convolution, batch norm, ReLU."""
    return [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def _layer(inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    """Batch norm, ReLU, convolution."""
    return [
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
    ]
