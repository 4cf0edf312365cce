"""New classes without forgetting: a detector is held to the one that it grew out of.

Pictures of the new classes name no old ones, though they may show some; to learn from such a picture as it is
would teach that those are background. Here what the old detector finds is not judged, and the new one is to
answer there as the old one does (Shmelkov et al. 2017, arXiv 1708.06977), and to see as it does: its maps
stay near (Chen et al. 2019, A New Knowledge Distillation for Incremental Object Detection).
"""

from __future__ import annotations

from collections.abc import Sequence

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

SAME = 0.5  # IoU with a labelled box from which a find of the old detector is taken to be that thing


class DistillationTask(DetectionTask):
    """The network's own losses, where the old detector finds nothing; beside it, the old one's answers."""

    def __init__(self, network: Network, old: Network, keep: Keep, device: Device) -> None:
        super().__init__(network, device)
        self.keep = keep
        # In a list, so that it is no part of the task: neither trained nor kept in checkpoints.
        self._old = [old.to(device.name).eval().requires_grad_(False)]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        old = self._old[0]
        pictures = batch.pictures.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), self.device.autocast():
            old_maps = old.features(pictures)
            old_boxes, old_scores = (found.float() for found in old.found(old_maps))
        targets = without(batch.targets, old_boxes, old_scores, self.keep.sure)
        with self.device.autocast():
            maps = self.network.features(pictures)
            terms = dict(self.network.losses_on(maps, targets))
            boxes, scores = (found.float() for found in self.network.found(maps))
        kept = response_loss(boxes, scores, old_boxes, old_scores, self.keep.sure)
        terms["responses"] = self.keep.responses * kept
        terms["features"] = self.keep.features * feature_loss(maps, old_maps)
        return terms


def without(targets: Sequence[Targets], boxes: Tensor, scores: Tensor, sure: float) -> tuple[Targets, ...]:
    """The targets, with what the old detector finds as ignored regions, but for what has a label of its own.

    boxes (N, A, 4), scores (N, A, C).
    """
    changed = []
    for of_one, found, score in zip(targets, boxes, scores.max(dim=2).values, strict=True):
        rows = found[score >= sure]
        if len(of_one.boxes) and len(rows):
            rows = rows[iou_and_cover(rows, of_one.boxes)[0].max(dim=1).values < SAME]
        changed.append(of_one._replace(ignored=torch.cat([of_one.ignored, rows])))
    return tuple(changed)


def response_loss(
    boxes: Tensor, scores: Tensor, old_boxes: Tensor, old_scores: Tensor, sure: float
) -> Tensor:
    """Cross entropy with the old scores and GIoU with the old boxes, at the points where the old one fires.

    boxes (N, A, 4), scores (N, A, C'), probabilities; of the old one with C <= C' classes. Mean over those
    points; 0 where there are none.
    """
    best = old_scores.max(dim=2).values
    fires = best >= sure
    count = fires.sum().clamp(min=1)
    own = scores[fires][:, : old_scores.shape[2]].clamp(1e-6, 1 - 1e-6)
    entropy = F.binary_cross_entropy(own, old_scores[fires], reduction="sum")
    return (entropy + giou_loss(boxes[fires], old_boxes[fires], best[fires])) / count


def feature_loss(maps: Sequence[Tensor], old_maps: Sequence[Tensor]) -> Tensor:
    """Squared differences of the maps, relative to the old ones' mean square; the mean over the maps."""
    terms = [
        F.mse_loss(own.float(), old.float()) / old.float().square().mean().clamp(min=1e-6)
        for own, old in zip(maps, old_maps, strict=True)
    ]
    return torch.stack(terms).mean()
