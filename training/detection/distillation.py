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
from training.detection.matching import iou_and_cover
from training.detection.recipe import Keep
from training.detection.task import DetectionTask
from training.device import Device
from training.models.backbone import train_with_fixed_statistics

SAME = 0.5  # IoU with a labelled box from which a find of the old detector is taken to be that thing


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
        kept = known_things(batch.targets, old_boxes, old_scores, self.keep.sure)
        targets = without(batch.targets, old_boxes, kept)
        with self.device.autocast():
            maps = self.network.features(pictures)
            terms = dict(self.network.losses_on(maps, targets))
            boxes, scores = (found.float() for found in self.network.found(maps))
        terms["responses"] = self.keep.responses * response_loss(boxes, scores, old_boxes, old_scores, kept)
        terms["features"] = self.keep.features * feature_loss(maps, old_maps)
        return terms


def known_things(targets: Sequence[Targets], boxes: Tensor, scores: Tensor, sure: float) -> Tensor:
    """(N, A) bool: where the old detector is `sure` of something that has no label of its own.

    Its boxes (N, A, 4), its scores (N, A, C).
    """
    fires = scores.max(dim=2).values >= sure
    for row, of_one in enumerate(targets):
        if len(of_one.boxes):
            fires[row] &= iou_and_cover(boxes[row], of_one.boxes)[0].max(dim=1).values < SAME
    return fires


def without(targets: Sequence[Targets], boxes: Tensor, kept: Tensor) -> tuple[Targets, ...]:
    """The targets, with those of the old boxes (N, A, 4) that are `kept` (N, A) as ignored regions."""
    return tuple(
        of_one._replace(ignored=torch.cat([of_one.ignored, found[rows]]))
        for of_one, found, rows in zip(targets, boxes, kept, strict=True)
    )


def response_loss(
    boxes: Tensor, scores: Tensor, old_boxes: Tensor, old_scores: Tensor, kept: Tensor
) -> Tensor:
    """Cross entropy with the old scores and GIoU with the old boxes, at the points that are `kept` (N, A).

    boxes (N, A, 4), scores (N, A, C'), probabilities; of the old one with C <= C' classes, the others are to
    be 0, which counts as much as the old one is sure: it may take a new thing for an old one. Mean over those
    points; 0 where there are none.
    """
    old = old_scores[kept]
    new_classes = scores.shape[2] - old_scores.shape[2]
    wanted, sure = F.pad(old, (0, new_classes)), old.max(dim=1).values
    weight = torch.cat([torch.ones_like(old), sure[:, None].expand(-1, new_classes)], dim=1)
    entropy = F.binary_cross_entropy(scores[kept].clamp(1e-6, 1 - 1e-6), wanted, weight, reduction="sum")
    moved = giou_loss(boxes[kept], old_boxes[kept], sure)
    return (entropy + moved) / kept.sum().clamp(min=1)


def feature_loss(maps: Sequence[Tensor], old_maps: Sequence[Tensor]) -> Tensor:
    """Squared differences of the maps, relative to the old ones' mean square; the mean over the maps."""
    terms = [
        F.mse_loss(own.float(), old.float()) / old.float().square().mean().clamp(min=1e-6)
        for own, old in zip(maps, old_maps, strict=True)
    ]
    return torch.stack(terms).mean()
