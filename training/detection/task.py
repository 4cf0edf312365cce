"""What the detector is asked to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.detection.batches import Batch
from training.detection.box_coding import decode
from training.detection.losses import focal_loss, giou_loss
from training.models.detector import Detector


class DetectorTask(nn.Module):
    """Focal loss over the judged anchors and GIoU over the positive ones, both per positive anchor."""

    def __init__(self, detector: Detector, box_weight: float, *, bf16: bool = False) -> None:
        super().__init__()
        self.detector, self.box_weight, self.bf16 = detector, box_weight, bf16

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            logits, offsets = self.detector(batch.pictures.contiguous(memory_format=torch.channels_last))
        judged, positive = batch.targets >= 0, batch.targets == 1
        count = positive.sum().clamp(min=1)
        anchors = self.detector.anchors.expand(len(offsets), -1, -1)
        found = decode(offsets.float()[positive], anchors[positive])
        return {
            "score": focal_loss(logits.float()[judged], batch.targets[judged].float()) / count,
            "box": self.box_weight * giou_loss(found, batch.boxes[positive]) / count,
        }
