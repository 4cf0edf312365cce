"""Maps that see detail and context, of depthwise separable convolutions as in PicoDet (arXiv 2111.00902).

Top-down (FPN, Lin et al. 2017, arXiv 1612.03144), then bottom-up (PAN, Liu et al. 2018, arXiv 1803.01534).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def separable(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """Depthwise then pointwise convolution, each with batch norm and ReLU6, which quantise well."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class Pyramid(nn.Module):
    """Maps of strides 8, 16, 32 with `channels` -> those of strides 8, 16, 32, 64 with `width` each."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width))
            for inputs in channels
        )
        self.smooth = nn.ModuleList(separable(width, width) for _ in channels[:-1])
        self.down = nn.ModuleList(separable(width, width, stride=2) for _ in channels)
        self.merged = nn.ModuleList(separable(width, width) for _ in channels[1:])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        lateral = [layer(x) for layer, x in zip(self.lateral, maps, strict=True)]
        top_down = [lateral[-1]]
        for level in reversed(range(len(lateral) - 1)):
            above = F.interpolate(top_down[0], scale_factor=2.0, mode="nearest")
            top_down.insert(0, self.smooth[level](lateral[level] + above))
        out = [top_down[0]]
        for level, merged in enumerate(self.merged):
            out.append(merged(top_down[level + 1] + self.down[level](out[-1])))
        return [*out, self.down[-1](out[-1])]
