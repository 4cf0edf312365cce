"""What SSD and DSOD share: six maps, anchors on each, a softmax over classes and nothing, SSD's loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.detection.anchors import AnchorLevel, anchors
from training.detection.box_coding import corners, decode, encode
from training.detection.contract import Network, Targets
from training.detection.matching import match
from training.detection.sampling import hard_negatives

BOX_WEIGHT = 1.0  # SSD's alpha


class AnchorHead(nn.Module):
    """Predicts from each map by one 3 x 3 convolution; maps are normalised before it."""

    anchors: Tensor

    def __init__(self, channels: Sequence[int], levels: Sequence[AnchorLevel], classes: int) -> None:
        super().__init__()
        self.classes = classes
        shapes = [len(level.shapes) for level in levels]
        self.score_heads = nn.ModuleList(
            nn.Conv2d(inputs, count * (classes + 1), 3, padding=1)
            for inputs, count in zip(channels, shapes, strict=True)
        )
        self.box_heads = nn.ModuleList(
            nn.Conv2d(inputs, count * 4, 3, padding=1) for inputs, count in zip(channels, shapes, strict=True)
        )
        for head in (*self.score_heads, *self.box_heads):
            nn.init.xavier_uniform_(head.weight)
            nn.init.zeros_(head.bias)
        self.register_buffer("anchors", torch.from_numpy(anchors(levels)), persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (N, A, C + 1), the last of nothing, and offsets (N, A, 4)."""
        logits = [
            _by_anchor(head(x), self.classes + 1) for head, x in zip(self.score_heads, maps, strict=True)
        ]
        offsets = [_by_anchor(head(x), 4) for head, x in zip(self.box_heads, maps, strict=True)]
        return torch.cat(logits, dim=1), torch.cat(offsets, dim=1)


class AnchorNetwork(Network):
    """A detector whose features, finest first, an AnchorHead reads."""

    head: AnchorHead

    def found(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        logits, offsets = self.head(maps)
        boxes = decode(offsets, self.head.anchors).clamp(0.0, 1.0)
        return boxes, logits.softmax(dim=2)[:, :, :-1]

    def losses_on(self, maps: Sequence[Tensor], targets: Sequence[Targets]) -> Mapping[str, Tensor]:
        logits, offsets = self.head(maps)
        return ssd_losses(logits.float(), offsets.float(), self.head.anchors, targets)

    def copy_classes(self, grown: Tensor, known: Tensor, classes: int) -> None:
        # Each anchor shape has a row for every class, and one for nothing after them.
        after = grown.view(-1, self.classes + 1, *grown.shape[1:])
        before = known.view(-1, classes + 1, *known.shape[1:])
        after[:, :classes] = before[:, :-1]
        after[:, -1] = before[:, -1]

    def float_layers(self) -> tuple[str, ...]:
        return ("score_heads", "box_heads")


def ssd_losses(
    logits: Tensor, offsets: Tensor, anchors: Tensor, targets: Sequence[Targets]
) -> dict[str, Tensor]:
    """Cross entropy over positives and thrice as many hard negatives, smooth L1 over the former's offsets.

    logits (N, A, C + 1), the last class is nothing; offsets (N, A, 4); anchors (A, 4: cx, cy, w, h). Both
    terms are divided by the number of positive anchors (Liu et al. 2016, eq. 1).
    """
    count, nothing = logits.shape[0], logits.shape[2] - 1
    places = corners(anchors)
    matches = [match(places, of_one.boxes, of_one.ignored) for of_one in targets]
    target = torch.stack([matched.target for matched in matches])  # (N, A)
    labels = torch.full_like(target, nothing)
    positive = target == 1
    truth = torch.zeros(count, len(anchors), 4, device=logits.device)
    for row, (matched, of_one) in enumerate(zip(matches, targets, strict=True)):
        chosen = positive[row]
        labels[row, chosen] = of_one.labels[matched.box[chosen]]
        truth[row, chosen] = of_one.boxes[matched.box[chosen]]
    entropy = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(target)
    judged = positive | hard_negatives(entropy, target)
    positives = positive.sum().clamp(min=1)
    wanted = encode(truth[positive], anchors.expand(count, -1, -1)[positive])
    return {
        "class": entropy[judged].sum() / positives,
        "box": BOX_WEIGHT * F.smooth_l1_loss(offsets[positive], wanted, reduction="sum") / positives,
    }


def _by_anchor(x: Tensor, values: int) -> Tensor:
    """(N, shapes * values, H, W) -> (N, H * W * shapes, values), in the order of the anchors."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)
