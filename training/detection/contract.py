"""What every detector is, whatever its architecture: a network that is trained, exported and served alike.

    recipe -> network -> losses while training, boxes and scores once exported -> `magpie.vision.detector`

Boxes are corners (x0, y0, x1, y1) as fractions of the square that the network sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Targets(NamedTuple):
    """What is to be found in one picture."""

    boxes: Tensor  # (N, 4)
    labels: Tensor  # (N,) int64, places in the taxonomy
    ignored: Tensor  # (M, 4): regions in which a detection is neither right nor wrong
    proposals: Tensor = torch.empty(0, 4)  # (P, 4): only for networks that need them

    def to(self, device: str) -> Targets:
        return Targets(*(part.to(device) for part in self))


class Network(nn.Module, ABC):
    """A detector of `classes` classes in pictures of `size` x `size` px."""

    # Whether something else must say where to look. Then `forward` takes that as its second argument,
    # (N, P, 4), targets carry it, and serving refuses the model: it has no source of proposals.
    needs_proposals: ClassVar[bool] = False
    # Whether a row of the outputs is the same place in every picture, so that two networks can be compared.
    fixed_rows: ClassVar[bool] = True

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.size = size
        self.classes = classes

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, size, size) -> boxes (N, A, 4) and scores (N, A, C), probabilities. This is exported.

        Overlapping boxes are left in: suppression is `magpie.vision.nms`, for all architectures.
        """
        return self.found(self.features(pictures))

    def losses(self, pictures: Tensor, targets: Sequence[Targets]) -> Mapping[str, Tensor]:
        """(N, 3, size, size) and what is in them -> the loss terms by name; their sum is minimised."""
        return self.losses_on(self.features(pictures), targets)

    @abstractmethod
    def features(self, pictures: Tensor) -> list[Tensor]:
        """(N, 3, size, size) -> the maps that all is predicted from: nearly all of the network's work."""

    @abstractmethod
    def found(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What `forward` returns, of the features."""

    @abstractmethod
    def losses_on(self, maps: Sequence[Tensor], targets: Sequence[Targets]) -> Mapping[str, Tensor]:
        """What `losses` returns, of the features."""

    @abstractmethod
    def stages(self) -> list[nn.Module]:
        """Pretrained parts from the lowest to the highest, which learn more slowly; empty from scratch."""

    def take_over(self, old: Network) -> None:
        """Begin with the weights of a detector of the same shape that knows this one's first classes."""
        state = self.state_dict()
        for name, known in old.state_dict().items():
            if state[name].shape == known.shape:
                state[name].copy_(known)
            else:
                self.copy_classes(state[name], known, old.classes)

    def copy_classes(self, grown: Tensor, known: Tensor, classes: int) -> None:
        """Into a score layer's weight or bias, what it was for the first `classes` classes."""
        grown[:classes] = known

    def float_layers(self) -> tuple[str, ...]:
        """Names of the modules that stay float in the int8 model: a head's last layers."""
        return ()


class ProposalNetwork(Network):
    """A network that scores proposals of someone else, and moves them."""

    needs_proposals = True
    fixed_rows = False

    def forward(self, pictures: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(N, 3, size, size) and proposals (N, P, 4) -> boxes (N, P, 4) and scores (N, P, C)."""
        return self.found(self.features(pictures), proposals)

    @abstractmethod
    def found(self, maps: Sequence[Tensor], proposals: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """What `forward` returns, of the features."""
