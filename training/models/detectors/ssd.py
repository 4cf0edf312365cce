"""SSD (Liu et al. 2016, arXiv 1512.02325) on EfficientNet-Lite0: all boxes in one pass.

    C4, C5 of the backbone -> three coarser maps -> anchors on each of the five

The paper stands on VGG and its stride of 8; here the finest map has stride 16, for small CPUs, and a 1 x 1
convolution with batch norm takes the place of L2 normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from training.detection.anchors import levels
from training.models.backbone import Lite0Backbone
from training.models.detectors.anchor_head import AnchorHead, AnchorNetwork

STRIDES = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class SsdShape:
    """How wide, which sizes of boxes, and what of the backbone learns."""

    width: int = 128  # channels of the maps that are predicted from
    smallest: float = 0.12  # scale of the finest map's anchors, a fraction of the square's side
    largest: float = 0.85  # that of the coarsest's
    frozen_stages: int = 2  # of the backbone's four


class Ssd(AnchorNetwork):
    """`size` is a multiple of 32."""

    def __init__(self, size: int, classes: int, shape: SsdShape, *, pretrained: bool = True) -> None:
        super().__init__(size, classes)
        self.backbone = Lite0Backbone(pretrained=pretrained, frozen_stages=shape.frozen_stages)
        width = shape.width
        self.normalised = nn.ModuleList(_layer(inputs, width, 1) for inputs in self.backbone.channels[1:])
        self.coarser = nn.ModuleList(
            nn.Sequential(*_layer(width, width // 2, 1), *_layer(width // 2, width, 3, stride=2))
            for _ in STRIDES[2:]
        )
        sides = [-(-size // stride) for stride in STRIDES]
        scales = levels(sides, smallest=shape.smallest, largest=shape.largest)
        self.head = AnchorHead([width] * len(STRIDES), scales, classes)

    def features(self, pictures: Tensor) -> list[Tensor]:
        _, *fine = self.backbone(pictures)
        maps = [normal(x) for normal, x in zip(self.normalised, fine, strict=True)]
        for coarser in self.coarser:
            maps.append(coarser(maps[-1]))
        return maps

    def stages(self) -> list[nn.Module]:
        return [self.backbone.stem, *self.backbone.stages]


def _layer(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )
