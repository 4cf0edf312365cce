"""Fast R-CNN (Girshick 2015, arXiv 1504.08083): one map for a picture, one look at it for each proposal.

    picture -> shared map (stride 16) -> RoIAlign of each proposal -> class and box

Proposals come from outside, here from selective search; class and box learn together, with the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from training.detection.contract import ProposalNetwork, Targets
from training.models.detectors.roi_head import RoiHead, sampled
from training.models.detectors.shared_map import SharedMap


@dataclass(frozen=True)
class FastRcnnShape:
    """How wide, and what of the backbone learns."""

    width: int = 96  # channels of the shared map
    cells: int = 6  # a proposal is seen as so many by so many; the paper: 7
    hidden: int = 256  # values in the head's two layers; the paper: 4096
    frozen_stages: int = 2  # of the backbone's four


class FastRcnn(ProposalNetwork):
    """`size` is a multiple of 32."""

    def __init__(self, size: int, classes: int, shape: FastRcnnShape, *, pretrained: bool = True) -> None:
        super().__init__(size, classes)
        self.map = SharedMap(shape.width, frozen_stages=shape.frozen_stages, pretrained=pretrained)
        self.head = RoiHead(shape.width, shape.cells, shape.hidden, classes)

    def features(self, pictures: Tensor) -> list[Tensor]:
        return [self.map(pictures)]

    def found(self, maps: Sequence[Tensor], proposals: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.head(maps[0], proposals)  # type: ignore[no-any-return]

    def losses_on(self, maps: Sequence[Tensor], targets: Sequence[Targets]) -> Mapping[str, Tensor]:
        drawn = [sampled(of_one.proposals, of_one, self.classes) for of_one in targets]
        return self.head.losses(maps[0], drawn)

    def stages(self) -> list[nn.Module]:
        return self.map.stages

    def copy_classes(self, grown: Tensor, known: Tensor, classes: int) -> None:  # noqa: ARG002
        self.head.copy_classes(grown, known)

    def float_layers(self) -> tuple[str, ...]:
        return ("head",)
