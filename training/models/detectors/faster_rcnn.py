"""Faster R-CNN (Ren et al. 2015, arXiv 1506.01497): the network proposes, then looks at its proposals.

    picture -> shared map (stride 16) -> anchors: something or nothing, and offsets -> the best of them
                                      -> RoIAlign of each -> class and box

While training, proposals are thinned by `magpie.vision.nms`, as in the paper. The exported graph takes the
best `exported` by their score of being something, with no suppression, which would not export as one simple
graph of a fixed size; so many more of them are near doubles, and `exported` is larger than `proposals`.
Suppression comes once, at the end, in serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magpie.vision.nms import CANDIDATES, nms
from training.detection.anchors import AnchorLevel
from training.detection.box_coding import corners, decode, encode
from training.detection.contract import Network, Targets
from training.detection.matching import match
from training.detection.sampling import balanced
from training.models.detectors.anchor_head import AnchorHead
from training.models.detectors.roi_head import RoiHead, sampled
from training.models.detectors.shared_map import STRIDE, SharedMap
from training.models.pyramid import separable

RATIOS = (1.0, 2.0, 0.5)
POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3  # of anchors; between them they are not judged
SAMPLED, POSITIVE_SHARE = 256, 0.5  # anchors of a picture that a step learns from
SUPPRESSED_IOU = 0.7  # of proposals while training
THINNEST = 0.01  # fraction; a thinner proposal shows nothing


@dataclass(frozen=True)
class FasterRcnnShape:
    """How wide, how many proposals, and what of the backbone learns."""

    width: int = 96  # channels of the shared map; the paper: 512
    scales: tuple[float, ...] = (0.12, 0.25, 0.5, 0.85)  # sides of the square anchors, fractions
    proposals: int = 100  # while training, after suppression; the paper: 2000
    exported: int = 150  # proposals of the trained network, without suppression
    cells: int = 6  # a proposal is seen as so many by so many; the paper: 7
    hidden: int = 256  # values in the head's two layers; the paper: 4096
    frozen_stages: int = 2  # of the backbone's four


class FasterRcnn(Network):
    """`size` is a multiple of 32."""

    fixed_rows = False

    def __init__(self, size: int, classes: int, shape: FasterRcnnShape, *, pretrained: bool = True) -> None:
        super().__init__(size, classes)
        self.shape = shape
        self.map = SharedMap(shape.width, frozen_stages=shape.frozen_stages, pretrained=pretrained)
        self.look = separable(shape.width, shape.width)
        anchors = tuple((scale, ratio) for scale in shape.scales for ratio in RATIOS)
        self.proposer = AnchorHead([shape.width], [AnchorLevel(size // STRIDE, anchors)], classes=1)
        self.exported = min(shape.exported, len(self.proposer.anchors))
        self.head = RoiHead(shape.width, shape.cells, shape.hidden, classes)

    def features(self, pictures: Tensor) -> list[Tensor]:
        return [self.map(pictures)]

    def found(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        (shared,) = maps
        logits, offsets = self.proposer([self.look(shared)])
        boxes, sure = self._ranked(logits, offsets)
        best = sure.topk(self.exported, dim=1).indices
        return self.head(shared, boxes.gather(1, best[..., None].expand(-1, -1, 4)))  # type: ignore[no-any-return]

    def losses_on(self, maps: Sequence[Tensor], targets: Sequence[Targets]) -> Mapping[str, Tensor]:
        (shared,) = maps
        logits, offsets = self.proposer([self.look(shared)])
        with torch.no_grad():
            boxes, sure = self._ranked(logits, offsets)
        drawn = [
            sampled(self._thinned(boxes[row], sure[row]), of_one, self.classes)
            for row, of_one in enumerate(targets)
        ]
        anchors = self.proposer.anchors
        return {
            **proposal_losses(logits.float(), offsets.float(), anchors, targets),
            **self.head.losses(shared, drawn),
        }

    def _ranked(self, logits: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Every anchor's box (N, A, 4), and its probability (N, A) of holding something."""
        boxes = decode(offsets.float(), self.proposer.anchors).clamp(0.0, 1.0)
        return boxes, logits.float().softmax(dim=2)[:, :, 0]

    def _thinned(self, boxes: Tensor, sure: Tensor) -> Tensor:
        """(A, 4), (A,) -> the best boxes that are not doubles of better ones."""
        thick = (boxes[:, 2:] - boxes[:, :2]).min(dim=1).values >= THINNEST
        boxes, sure = boxes[thick], sure[thick]
        best = sure.topk(min(CANDIDATES, len(sure))).indices
        kept = nms(boxes[best].cpu().numpy(), sure[best].cpu().numpy(), SUPPRESSED_IOU, self.shape.proposals)
        return boxes[best[torch.from_numpy(kept).to(best.device)]]

    def stages(self) -> list[nn.Module]:
        return self.map.stages

    def copy_classes(self, grown: Tensor, known: Tensor, classes: int) -> None:  # noqa: ARG002
        self.head.copy_classes(grown, known)

    def float_layers(self) -> tuple[str, ...]:
        return ("head", "proposer")


def proposal_losses(
    logits: Tensor, offsets: Tensor, anchors: Tensor, targets: Sequence[Targets]
) -> dict[str, Tensor]:
    """Something or nothing over a balanced sample of anchors; smooth L1 where there is something.

    logits (N, A, 2: something, nothing), offsets (N, A, 4), anchors (A, 4: cx, cy, w, h). Each is a mean over
    what it judges, which makes the two alike in size, as the paper's weight of 10 does.
    """
    places = corners(anchors)
    classes, boxes, drawn, positives = [], [], 0, 0
    for row, of_one in enumerate(targets):
        matched = match(places, of_one.boxes, of_one.ignored, positive=POSITIVE_IOU, negative=NEGATIVE_IOU)
        judged = balanced(matched.target, SAMPLED, POSITIVE_SHARE)
        labels = (matched.target[judged] != 1).long()
        classes.append(F.cross_entropy(logits[row, judged], labels, reduction="sum"))
        positive = judged & (matched.target == 1)
        wanted = encode(of_one.boxes[matched.box[positive]], anchors[positive])
        boxes.append(F.smooth_l1_loss(offsets[row, positive], wanted, reduction="sum"))
        drawn, positives = drawn + len(labels), positives + len(wanted)
    return {
        "proposal class": torch.stack(classes).sum() / max(1, drawn),
        "proposal box": torch.stack(boxes).sum() / max(1, positives),
    }
