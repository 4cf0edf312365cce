"""What a map shows inside each box, as a small map of fixed size.

RoI pooling (Girshick 2015, arXiv 1504.08083) in the form of RoIAlign (He et al. 2017, arXiv 1703.06870):
bilinear samples at exact places, averaged; nothing is rounded to cells. It is one `grid_sample`, which ONNX
has as GridSample from opset 16.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def roi_align(
    maps: Tensor,
    boxes: Tensor,
    cells: int,
    *,
    samples: int = 2,
    outside: Literal["border", "zeros"] = "border",
) -> Tensor:
    """Maps (N, C, H, W) and boxes (N, K, 4), fractions of the map -> (N, K, C, cells, cells).

    A cell is the mean of `samples` x `samples` points that lie evenly in it. What lies `outside` the map is
    its nearest value, or zero.
    """
    side = cells * samples
    steps = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5) / side
    places = boxes[..., :2, None] + (boxes[..., 2:] - boxes[..., :2])[..., None] * steps  # (N, K, 2, side)
    x = places[:, :, 0, None, :].expand(-1, -1, side, -1)
    y = places[:, :, 1, :, None].expand(-1, -1, -1, side)
    grid = 2 * torch.stack([x, y], dim=-1) - 1  # (N, K, side, side, 2), -1 and 1 are the map's outer edges
    found = F.grid_sample(
        maps, grid.flatten(1, 2), mode="bilinear", padding_mode=outside, align_corners=False
    )  # (N, C, K * side, side)
    cut = found.reshape(maps.shape[0], maps.shape[1], boxes.shape[1], cells, samples, cells, samples)
    return cut.mean(dim=(4, 6)).transpose(1, 2)
