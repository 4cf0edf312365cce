"""R-CNN (Girshick et al. 2014, arXiv 1311.2524): every proposal is a picture of its own.

    proposal with context -> warped to a square -> features of an ImageNet network -> a linear SVM a class
                                                                                   -> a box regression a class

SVMs and regressions are linear layers here, so that it runs and exports as the others do; `fit_rcnn` fits
them, for nothing of it is trained by gradients. The paper fine-tunes its network on warped proposals first;
this one has ImageNet's weights as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.detection.box_coding import centred, decode
from training.detection.contract import ProposalNetwork, Targets
from training.models.backbone import Lite0Features
from training.models.detectors.roi_align import roi_align

NEVER = -10.0  # margin of a class of which there was no example


@dataclass(frozen=True)
class RcnnShape:
    """How proposals are shown to the network, and how it is fitted."""

    crop: int = 96  # px of a warped proposal, a multiple of 32; the paper: 227
    context: float = 0.16  # how much wider than the proposal what is shown is; the paper: 16 px on each side
    cost: float = 1e-3  # the SVMs' C
    ridge: float = 1000.0  # the regressions' penalty
    rounds: int = 4  # of hard-negative mining, at most

    def __post_init__(self) -> None:
        if self.crop % 32 or self.crop < 32:
            raise ValueError(f"`crop` must be a multiple of 32, got {self.crop}")


class Rcnn(ProposalNetwork):
    """Its classes know nothing until `fit_rcnn` or `load`."""

    def __init__(self, size: int, classes: int, shape: RcnnShape, *, pretrained: bool = True) -> None:
        super().__init__(size, classes)
        self.shape = shape
        self.network = Lite0Features(pretrained=pretrained)
        self.svms = nn.Linear(Lite0Features.dimension, classes)
        self.regressions = nn.Linear(Lite0Features.dimension, 4 * classes)
        for layer, bias in ((self.svms, NEVER), (self.regressions, 0.0)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)
        self.requires_grad_(False)

    def describe(self, pictures: Tensor, proposals: Tensor) -> Tensor:
        """(N, 3, size, size) and proposals (N, P, 4) -> features (N * P, 1280).

        What lies outside the picture is the mean colour, which is zero.
        """
        anchors = centred(proposals)
        reach = anchors[..., 2:] * (1 + self.shape.context) / 2
        shown = torch.cat([anchors[..., :2] - reach, anchors[..., :2] + reach], dim=-1)
        crops = roi_align(pictures, shown, self.shape.crop, outside="zeros").flatten(0, 1)
        described: Tensor = self.network(crops)
        return described

    def features(self, pictures: Tensor) -> list[Tensor]:
        return [pictures]

    def found(self, maps: Sequence[Tensor], proposals: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Scores: the SVMs' margins, squashed. Boxes are moved by the regression of their best class."""
        described = self.describe(maps[0], proposals)
        margins = self.svms(described)  # (N * P, C)
        moves = self.regressions(described).reshape(-1, self.classes, 4)
        best = margins.argmax(dim=1)[:, None, None].expand(-1, -1, 4)
        offsets = moves.gather(1, best).reshape(proposals.shape)
        scores = margins.sigmoid().reshape(proposals.shape[0], proposals.shape[1], self.classes)
        return decode(offsets, centred(proposals)).clamp(0.0, 1.0), scores

    def losses_on(self, maps: Sequence[Tensor], targets: Sequence[Targets]) -> Mapping[str, Tensor]:
        raise NotImplementedError("R-CNN is fitted by `fit_rcnn`, not trained by gradients")

    def stages(self) -> list[nn.Module]:
        return self.network.layers

    def float_layers(self) -> tuple[str, ...]:
        return ("svms", "regressions")

    def save(self, path: Path) -> None:
        """What was fitted: `svms` (C, 1281), `regressions` (4 C, 1281), a bias last; whole or not at all."""
        arrays = {
            name: torch.cat([layer.weight, layer.bias[:, None]], dim=1).cpu().numpy()
            for name, layer in (("svms", self.svms), ("regressions", self.regressions))
        }
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **arrays)  # type: ignore[arg-type]
        partial.replace(path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Take what `save` wrote."""
        with np.load(path) as saved:
            for name, layer in (("svms", self.svms), ("regressions", self.regressions)):
                rows = torch.from_numpy(saved[name])
                layer.weight.copy_(rows[:, :-1])
                layer.bias.copy_(rows[:, -1])
