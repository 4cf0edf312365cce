"""What Fast and Faster R-CNN say of a proposal: its class, or that it is nothing, and a better box.

Girshick 2015 (arXiv 1504.08083). Boxes are moved alike for all classes, as the contract has one box a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.detection.box_coding import centred, decode, encode
from training.detection.contract import Targets
from training.detection.matching import match
from training.detection.sampling import balanced
from training.models.detectors.roi_align import roi_align

POSITIVE_IOU = 0.5  # below it a proposal is nothing
SAMPLED = 64  # proposals of a picture that a step learns from
POSITIVE_SHARE = 0.25  # of them at most
# Points a cell along each side: 2 take four times as long, and more matter little (He et al. 2017).
SAMPLES = 1


class Sampled(NamedTuple):
    """The proposals of one picture that a step learns from."""

    boxes: Tensor  # (R, 4)
    labels: Tensor  # (R,), the number of classes where there is nothing
    truth: Tensor  # (R, 4); meaningful where there is something


class RoiHead(nn.Module):
    """Two hidden layers over what the shared map shows of a proposal."""

    def __init__(self, inputs: int, cells: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.cells = cells
        self.classes = classes
        self.hidden = nn.Sequential(
            nn.Linear(inputs * cells * cells, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.score_heads = nn.Linear(hidden, classes + 1)
        self.box_heads = nn.Linear(hidden, 4)
        for head, deviation in ((self.score_heads, 0.01), (self.box_heads, 0.001)):  # the paper's
            nn.init.normal_(head.weight, std=deviation)
            nn.init.zeros_(head.bias)

    def forward(self, maps: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W), proposals (N, K, 4) -> boxes (N, K, 4) and scores (N, K, classes)."""
        shown = roi_align(maps, proposals, self.cells, samples=SAMPLES).flatten(2)
        count, each = shown.shape[:2]
        logits, offsets = self._said(shown.flatten(0, 1))  # in two dimensions: exported as Gemm
        boxes = decode(offsets.float().reshape(count, each, 4), centred(proposals)).clamp(0.0, 1.0)
        return boxes, logits.float().softmax(dim=1)[:, :-1].reshape(count, each, self.classes)

    def _said(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """(R, inputs * cells * cells) -> logits (R, classes + 1) and offsets (R, 4)."""
        x = self.hidden(shown)
        return self.score_heads(x), self.box_heads(x)

    def losses(self, maps: Tensor, sampled: Sequence[Sampled]) -> dict[str, Tensor]:
        """Cross entropy, and smooth L1 of the offsets where there is something: means over proposals."""
        shown = [
            roi_align(maps[row : row + 1], one.boxes[None], self.cells, samples=SAMPLES)[0].flatten(1)
            for row, one in enumerate(sampled)
        ]
        logits, offsets = self._said(torch.cat(shown))
        boxes, labels, truth = (torch.cat(parts) for parts in zip(*sampled, strict=True))
        something = labels < self.classes
        wanted = encode(truth[something], centred(boxes[something]))
        count = max(1, len(labels))
        return {
            "class": F.cross_entropy(logits.float(), labels, reduction="sum") / count,
            "box": F.smooth_l1_loss(offsets[something].float(), wanted, reduction="sum") / count,
        }

    def copy_classes(self, grown: Tensor, known: Tensor) -> None:
        """Into the score layer's weight or bias, what a head of fewer classes had; nothing comes last."""
        grown[: len(known) - 1] = known[:-1]
        grown[-1] = known[-1]


@torch.no_grad()
def sampled(proposals: Tensor, targets: Targets, classes: int) -> Sampled:
    """Draw from the proposals (P, 4) of a picture and its own boxes, which are the surest examples.

    The paper takes nothing below IoU 0.1 for a negative, to have hard ones; small squares have few enough.
    """
    candidates = torch.cat([targets.boxes, proposals])
    matched = match(candidates, targets.boxes, targets.ignored, positive=POSITIVE_IOU, negative=POSITIVE_IOU)
    drawn = balanced(matched.target, SAMPLED, POSITIVE_SHARE)
    labels = torch.full_like(matched.target, classes)
    truth = torch.zeros_like(candidates)
    positive = matched.target == 1
    labels[positive] = targets.labels[matched.box[positive]]
    truth[positive] = targets.boxes[matched.box[positive]]
    return Sampled(candidates[drawn], labels[drawn], truth[drawn])
