"""The one map that all proposals of a picture are looked up in."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from training.models.backbone import Lite0Backbone
from training.models.pyramid import separable

STRIDE = 16


class SharedMap(nn.Module):
    """(N, 3, S, S) -> (N, width, S / 16, S / 16): Lite0's map of stride 16, with what stride 32 knows added.

    VGG's last map has stride 16, of which the papers' detectors are made; Lite0's at that stride is but two
    thirds of the network.
    """

    def __init__(self, width: int, *, frozen_stages: int, pretrained: bool) -> None:
        super().__init__()
        self.backbone = Lite0Backbone(pretrained=pretrained, frozen_stages=frozen_stages)
        _, fine, coarse = self.backbone.channels
        self.fine = nn.Sequential(nn.Conv2d(fine, width, 1, bias=False), nn.BatchNorm2d(width))
        self.coarse = nn.Sequential(nn.Conv2d(coarse, width, 1, bias=False), nn.BatchNorm2d(width))
        self.smooth = separable(width, width)

    def forward(self, pictures: Tensor) -> Tensor:
        _, fine, coarse = self.backbone(pictures)
        above = F.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        merged: Tensor = self.smooth(self.fine(fine) + above)
        return merged

    @property
    def stages(self) -> list[nn.Module]:
        """The pretrained parts, from the lowest to the highest."""
        return [self.backbone.stem, *self.backbone.stages]
