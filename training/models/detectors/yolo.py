"""YOLO (Redmon et al. 2016, arXiv 1506.02640): a grid of cells, each of which answers for what centres in it.

    C5 of the backbone (stride 32: S x S cells) -> convolutions -> B boxes and C class probabilities a cell

A box is x and y within its cell, the roots of its width and height as fractions of the square, and the IoU
that it expects to have. The last layer is a 1 x 1 convolution, where the paper has two dense layers: these
would be larger than all the rest. Outputs are linear and the loss a sum of squares, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.detection.contract import Network, Targets
from training.detection.matching import inside, iou_and_cover
from training.models.backbone import Lite0Backbone
from training.models.pyramid import separable

STRIDE = 32
COORDINATES, NOTHING = 5.0, 0.5  # the paper's lambda_coord and lambda_noobj


@dataclass(frozen=True)
class YoloShape:
    """How wide, how many boxes a cell, and what of the backbone learns."""

    boxes: int = 2  # that a cell predicts: the paper's B
    width: int = 192  # channels of the convolutions after the backbone; the paper: 1024
    layers: int = 3  # how many of them
    frozen_stages: int = 2  # of the backbone's four


class Predicted(NamedTuple):
    """What the cells say, in the order row, column; S * S cells."""

    boxes: Tensor  # (N, S * S, B, 5: x and y in the cell, roots of width and height, confidence)
    classes: Tensor  # (N, S * S, C)


class Yolo(Network):
    """`size` is a multiple of 32."""

    corners: Tensor  # (S * S, 1, 2: x, y), upper left of each cell, in cells

    def __init__(self, size: int, classes: int, shape: YoloShape, *, pretrained: bool = True) -> None:
        super().__init__(size, classes)
        self.cells = size // STRIDE  # the paper's S
        self.boxes = shape.boxes
        self.backbone = Lite0Backbone(pretrained=pretrained, frozen_stages=shape.frozen_stages)
        widths = [self.backbone.channels[-1], *[shape.width] * shape.layers]
        self.tower = nn.Sequential(*(separable(inputs, outputs) for inputs, outputs in pairwise(widths)))
        self.heads = _head(shape.width, shape.boxes, classes)
        y, x = torch.meshgrid(torch.arange(self.cells), torch.arange(self.cells), indexing="ij")
        corners = torch.stack([x, y], dim=2).reshape(-1, 1, 2).float()
        self.register_buffer("corners", corners, persistent=False)

    def features(self, pictures: Tensor) -> list[Tensor]:
        return [self.tower(self.backbone(pictures)[-1])]

    def predicted(self, maps: Sequence[Tensor]) -> Predicted:
        """The one map -> what its cells say, as it is learnt."""
        said = self.heads(maps[0]).float()
        rows = said.permute(0, 2, 3, 1).reshape(said.shape[0], self.cells * self.cells, said.shape[1])
        split = 5 * self.boxes
        boxes = rows[:, :, :split].reshape(said.shape[0], self.cells * self.cells, self.boxes, 5)
        return Predicted(boxes, rows[:, :, split:])

    def decode(self, boxes: Tensor) -> Tensor:
        """(..., S * S, B, 5) -> corner boxes (..., S * S, B, 4)."""
        centres = (boxes[..., :2] + self.corners) / self.cells
        half = boxes[..., 2:4] ** 2 / 2
        return torch.cat([centres - half, centres + half], dim=-1)

    def found(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        said = self.predicted(maps)
        scores = said.boxes[..., 4:].clamp(0.0, 1.0) * said.classes[:, :, None].clamp(0.0, 1.0)
        return self.decode(said.boxes).clamp(0.0, 1.0).flatten(1, 2), scores.flatten(1, 2)

    def losses_on(self, maps: Sequence[Tensor], targets: Sequence[Targets]) -> Mapping[str, Tensor]:
        """The paper's sums of squares, a picture."""
        said = self.predicted(maps)
        boxes, classes = said.boxes, said.classes
        found = self.decode(boxes.detach())
        terms = {name: boxes.new_zeros(()) for name in ("coordinates", "confidence", "nothing", "class")}
        for row, of_one in enumerate(targets):
            cell, box = responsible(found[row], of_one.boxes, self.cells)
            truth, labels = of_one.boxes[box.truth], of_one.labels[box.truth]
            mine = boxes[row, cell, box.place]  # (M, 5)
            sides = (truth[:, 2:] - truth[:, :2]).clamp(min=0).sqrt()
            within = (truth[:, 2:] + truth[:, :2]) / 2 * self.cells - self.corners[cell, 0]
            terms["coordinates"] += (mine[:, :4] - torch.cat([within, sides], dim=1)).square().sum()
            terms["confidence"] += (mine[:, 4] - box.overlap).square().sum()
            empty = self._empty(of_one.ignored)[:, None].repeat(1, self.boxes)
            empty[cell, box.place] = False
            terms["nothing"] += boxes[row, :, :, 4][empty].square().sum()
            wanted = nn.functional.one_hot(labels, self.classes)
            terms["class"] += (classes[row, cell] - wanted).square().sum()
        weights = {"coordinates": COORDINATES, "nothing": NOTHING}
        return {name: weights.get(name, 1.0) * term / len(targets) for name, term in terms.items()}

    def _empty(self, ignored: Tensor) -> Tensor:
        """(S * S,) bool: cells whose middle lies in no ignored region (M, 4), so that they may be empty."""
        middles = (self.corners[:, 0] + 0.5) / self.cells
        return ~inside(middles, ignored).any(dim=1)

    def stages(self) -> list[nn.Module]:
        return [self.backbone.stem, *self.backbone.stages]

    def copy_classes(self, grown: Tensor, known: Tensor, classes: int) -> None:  # noqa: ARG002
        grown[: len(known)] = known  # classes come last

    def float_layers(self) -> tuple[str, ...]:
        return ("heads",)


def _head(inputs: int, boxes: int, classes: int) -> nn.Conv2d:
    """Boxes begin in the middle of their cell, the first half as wide as the square, the next a quarter."""
    head = nn.Conv2d(inputs, 5 * boxes + classes, 1)
    nn.init.normal_(head.weight, std=0.01)
    first = torch.zeros(5 * boxes + classes)
    for box in range(boxes):
        side = 0.5 ** (box + 1)
        first[5 * box : 5 * box + 4] = torch.tensor([0.5, 0.5, side**0.5, side**0.5])
    head.bias = nn.Parameter(first)
    return head


class Responsible(NamedTuple):
    """The box of a cell that is to become a truth."""

    place: Tensor  # (M,) among the cell's
    truth: Tensor  # (M,) index of the truth
    overlap: Tensor  # (M,) their IoU: what its confidence should be


def responsible(found: Tensor, truth: Tensor, cells: int) -> tuple[Tensor, Responsible]:
    """Boxes (S * S, B, 4), truths (N, 4) -> the cells (M,) that hold a centre, and their responsible boxes.

    A cell has one truth: of several that centre in it, the largest. Of its boxes the one with the highest IoU
    is responsible.
    """
    centres = ((truth[:, :2] + truth[:, 2:]) / 2 * cells).long().clamp(0, cells - 1)
    cell_of = centres[:, 1] * cells + centres[:, 0]
    size = (truth[:, 2:] - truth[:, :2]).prod(dim=1)
    owner = {int(cell_of[row]): int(row) for row in size.argsort(stable=True)}  # the largest comes last
    cell = torch.tensor(list(owner), dtype=torch.long, device=found.device)
    chosen = torch.tensor(list(owner.values()), dtype=torch.long, device=found.device)
    overlaps = [
        iou_and_cover(found[one], truth[row : row + 1])[0][:, 0] for one, row in owner.items()
    ]  # M of (B,)
    overlap = torch.stack(overlaps) if overlaps else found.new_zeros(0, found.shape[1])
    best, place = overlap.max(dim=1)
    return cell, Responsible(place, chosen, best)
