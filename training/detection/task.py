"""What a detector is asked to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.detection.batches import Batch
from training.detection.contract import Network
from training.device import Device


class DetectionTask(nn.Module):
    """The network's own losses, in the device's precision."""

    def __init__(self, network: Network, device: Device) -> None:
        super().__init__()
        self.network = network
        self.device = device

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        pictures = batch.pictures.contiguous(memory_format=torch.channels_last)
        with self.device.autocast():
            return dict(self.network.losses(pictures, batch.targets))
