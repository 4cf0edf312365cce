"""New classes without forgetting: a detector is held to the one that it grew out of.

Pictures of the new classes name no old ones, though they may show some; to learn from such a picture as it is
would teach that those are background. Here what the old detector finds, and no label says otherwise, is not
judged; the new one is to answer there as the old one does (Shmelkov et al. 2017, arXiv 1708.06977), with none
of the new classes, for all of these have labels. And it is to see as the old one does: its maps stay near
(Chen et al. 2019, A New Knowledge Distillation for Incremental Object Detection).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from training.detection.batches import Batch
from training.detection.contract import Network, Targets
from training.detection.losses import giou_loss
from training.detection.matching import COVERED, iou_and_cover
from training.detection.recipe import Keep
from training.detection.task import DetectionTask
from training.device import Device
from training.models.backbone import train_with_fixed_statistics

SAME = 0.5  # IoU with a labelled box from which a detector's box is taken to be that thing


class DistillationTask(DetectionTask):
    """The network's own losses, where the old detector finds nothing; beside it, the old one's answers."""

    def __init__(self, network: Network, old: Network, keep: Keep, device: Device) -> None:
        super().__init__(network, device)
        self.keep = keep
        # In a list, so that it is no part of the task: neither trained nor kept in checkpoints.
        self._old = [old.to(device.name).eval().requires_grad_(False)]

    def train(self, mode: bool = True) -> Self:
        """Batch norm keeps its statistics: by a batch's own, two networks of equal weights would differ."""
        return train_with_fixed_statistics(self, mode)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        old = self._old[0]
        pictures = batch.pictures.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), self.device.autocast():
            old_maps = old.features(pictures)
            old_boxes, old_scores = (found.float() for found in old.found(old_maps))
        labelled = on_labelled(batch.targets, old_boxes)
        kept = (old_scores.max(dim=2).values >= self.keep.sure) & ~labelled
        judged = without(batch.targets, old_boxes, kept)
        with self.device.autocast():
            maps = self.network.features(pictures)
            terms = dict(self.network.losses_on(maps, judged))
            boxes, scores = (found.float() for found in self.network.found(maps))
        # The labelled losses leave unjudged every box that lies on a kept thing, not only what is kept: a new
        # class could claim an old thing by any of them, by the old one's place or by its own.
        own = boxes.detach()
        absent = on_kept(old_boxes, old_boxes, kept) & ~labelled
        absent |= on_kept(own, old_boxes, kept) & ~on_labelled(batch.targets, own)
        terms["responses"] = self.keep.responses * response_loss(
            boxes, scores, old_boxes, old_scores, kept, absent
        )
        terms["features"] = self.keep.features * feature_loss(maps, old_maps)
        return terms


@torch.no_grad()
def on_labelled(targets: Sequence[Targets], boxes: Tensor) -> Tensor:
    """(N, A) bool: which of a detector's boxes (N, A, 4) are taken to be a labelled thing."""
    same = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    for row, of_one in enumerate(targets):
        if len(of_one.boxes):
            same[row] = (iou_and_cover(boxes[row], of_one.boxes)[0] >= SAME).any(dim=1)
    return same


@torch.no_grad()
def on_kept(boxes: Tensor, old_boxes: Tensor, kept: Tensor) -> Tensor:
    """(N, A) bool: which boxes (N, A, 4) lie on one of the old boxes (N, A, 4) that are `kept` (N, A)."""
    lies = torch.zeros_like(kept)
    for row, rows in enumerate(kept):
        if rows.any():
            lies[row] = (iou_and_cover(boxes[row], old_boxes[row, rows])[1] >= COVERED).any(dim=1)
    return lies


def without(targets: Sequence[Targets], boxes: Tensor, kept: Tensor) -> tuple[Targets, ...]:
    """The targets, with those of the old boxes (N, A, 4) that are `kept` (N, A) as ignored regions."""
    return tuple(
        of_one._replace(ignored=torch.cat([of_one.ignored, found[rows]]))
        for of_one, found, rows in zip(targets, boxes, kept, strict=True)
    )


def response_loss(
    boxes: Tensor, scores: Tensor, old_boxes: Tensor, old_scores: Tensor, kept: Tensor, absent: Tensor
) -> Tensor:
    """Cross entropy with the old scores and GIoU with the old boxes, at the points that are `kept` (N, A).

    boxes (N, A, 4), scores (N, A, C'), probabilities; of the old one with C <= C' classes, the others are to
    be 0 wherever they are `absent` (N, A). Over the number of kept points; 0 where there are none.
    """
    known = old_scores.shape[2]
    scores = scores.clamp(1e-6, 1 - 1e-6)
    old = old_scores[kept]
    entropy = F.binary_cross_entropy(scores[..., :known][kept], old, reduction="sum")
    claimed = -(1 - scores[..., known:][absent]).log().sum()
    moved = giou_loss(boxes[kept], old_boxes[kept], old.max(dim=1).values)
    return (entropy + claimed + moved) / kept.sum().clamp(min=1)


def feature_loss(maps: Sequence[Tensor], old_maps: Sequence[Tensor]) -> Tensor:
    """Squared differences of the maps, relative to the old ones' mean square; the mean over the maps."""
    terms = [
        F.mse_loss(own.float(), old.float()) / old.float().square().mean().clamp(min=1e-6)
        for own, old in zip(maps, old_maps, strict=True)
    ]
    return torch.stack(terms).mean()
