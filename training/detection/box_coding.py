"""Boxes against anchors, coded as in SSD; the exported graph decodes with the same function."""

from __future__ import annotations

import torch
from torch import Tensor

CENTRE_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
LARGEST_EXPONENT = 4.0  # exp of it: no box is larger than 55 anchors


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Corner boxes (..., 4) and anchors (..., 4: cx, cy, w, h) -> offsets (..., 4) that the head learns."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-6)
    centres = (boxes[..., 2:] + boxes[..., :2]) / 2
    shift = (centres - anchors[..., :2]) / anchors[..., 2:] / CENTRE_VARIANCE
    growth = torch.log(sides / anchors[..., 2:]) / SIZE_VARIANCE
    return torch.cat([shift, growth], dim=-1)


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """The inverse: offsets (..., 4) -> corner boxes (..., 4: x0, y0, x1, y1)."""
    centres = offsets[..., :2] * CENTRE_VARIANCE * anchors[..., 2:] + anchors[..., :2]
    exponents = (offsets[..., 2:] * SIZE_VARIANCE).clamp(max=LARGEST_EXPONENT)
    half = torch.exp(exponents) * anchors[..., 2:] / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def corners(anchors: Tensor) -> Tensor:
    """Anchors (..., 4: cx, cy, w, h) as corner boxes (..., 4)."""
    half = anchors[..., 2:] / 2
    return torch.cat([anchors[..., :2] - half, anchors[..., :2] + half], dim=-1)


def centred(boxes: Tensor) -> Tensor:
    """The inverse: corner boxes (..., 4) as anchors (..., 4: cx, cy, w, h)."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)
