"""The embedder: one backbone, one linear head a space, every output of unit norm."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.backbone import Lite0Features

SPACES: Mapping[str, int] = {"identity": 128, "category": 64, "similar": 64}


class Embedder(nn.Module):
    """(N, 3, H, W) -> {space: (N, dimension), unit norm}."""

    def __init__(
        self, spaces: Mapping[str, int] = SPACES, *, pretrained: bool = True, frozen_stages: int = 0
    ) -> None:
        super().__init__()
        self.features = Lite0Features(pretrained=pretrained, frozen_stages=frozen_stages)
        self.heads = nn.ModuleDict(
            {space: nn.Linear(self.features.dimension, d) for space, d in spaces.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.project(self.features(x))

    def project(self, features: Tensor) -> dict[str, Tensor]:
        """Features (N, 1280) -> the spaces."""
        return {space: F.normalize(head(features), dim=1) for space, head in self.heads.items()}

    @torch.no_grad()
    def start_from_principal_components(self, features: Tensor) -> None:
        """Set each head to the leading principal directions of `features` (M, 1280).

        A space then begins as a faithful, centred projection of what the backbone sees, not as a random one.
        Where there are fewer pictures than dimensions, the other rows stay random.
        """
        mean = features.mean(dim=0)
        directions = torch.linalg.svd(features - mean, full_matrices=False).Vh
        for head in self.heads.values():
            assert isinstance(head, nn.Linear)
            known = min(head.out_features, len(directions))
            head.weight[:known] = directions[:known]
            head.bias.copy_(-head.weight @ mean)
