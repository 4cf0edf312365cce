from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from magpie.vision.nms import nms
from tests.unit.training.tiny_boxes import NO_BOXES, NO_LABELS, random_boxes, two_pictures
from training.detection.box_coding import corners, encode
from training.detection.contract import Targets
from training.detection.matching import COVERED, iou_and_cover, match
from training.models.detectors.anchor_head import ssd_losses
from training.models.detectors.faster_rcnn import (
    NEGATIVE_IOU,
    POSITIVE_IOU,
    SUPPRESSED_IOU,
    FasterRcnn,
    FasterRcnnShape,
    proposal_losses,
)
from training.models.detectors.roi_head import POSITIVE_SHARE, SAMPLED, RoiHead, Sampled, sampled


def anchors_in_rows():
    generator = torch.Generator().manual_seed(3)
    rows = random_boxes(120, generator)
    return torch.cat([(rows[:, :2] + rows[:, 2:]) / 2, rows[:, 2:] - rows[:, :2]], dim=1)


def test_a_sample_has_the_truths_themselves_and_what_each_proposal_is():
    torch.manual_seed(0)
    targets = two_pictures()[1][0]
    near = targets.boxes + 0.01
    proposals = torch.cat([near, random_boxes(200, torch.Generator().manual_seed(1), least=0.05)])
    drawn = sampled(proposals, targets, classes=3)
    assert len(drawn.boxes) == SAMPLED
    assert int((drawn.labels < 3).sum()) <= SAMPLED * POSITIVE_SHARE
    overlap = iou_and_cover(drawn.boxes, targets.boxes)[0]
    best, which = overlap.max(dim=1)
    for row, label in enumerate(drawn.labels.tolist()):
        assert label == (targets.labels[which[row]].item() if best[row] >= 0.5 else 3)
        if label < 3:
            assert torch.equal(drawn.truth[row], targets.boxes[which[row]])


def test_a_sample_leaves_out_proposals_in_ignored_regions():
    region = torch.tensor([[0.0, 0.0, 0.5, 1.0]])
    proposals = random_boxes(60, torch.Generator().manual_seed(1))
    drawn = sampled(proposals, Targets(NO_BOXES, NO_LABELS, region), classes=3)
    assert 0 < len(drawn.boxes) < 60
    assert (iou_and_cover(drawn.boxes, region)[1] < COVERED).all()


def test_the_head_s_losses_are_means_over_proposals():
    torch.manual_seed(0)
    head = RoiHead(4, 3, 16, 3)
    maps, generator = torch.rand(2, 4, 6, 6), torch.Generator().manual_seed(0)
    drawn = [
        Sampled(random_boxes(3, generator), torch.tensor([0, 3, 2]), random_boxes(3, generator)),
        Sampled(random_boxes(2, generator), torch.tensor([3, 3]), torch.zeros(2, 4)),
    ]
    found = head.losses(maps, drawn)
    entropy, moved = 0.0, 0.0
    for row, one in enumerate(drawn):
        boxes, scores = head(maps[row : row + 1], one.boxes[None])
        for place, label in enumerate(one.labels.tolist()):
            probability = scores[0, place, label] if label < 3 else 1 - scores[0, place].sum()
            entropy -= probability.log().item()
            if label < 3:
                x0, y0, x1, y1 = one.boxes[place].tolist()
                anchor = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
                now = encode(boxes[0, place], anchor)
                moved += F.smooth_l1_loss(now, encode(one.truth[place], anchor), reduction="sum").item()
    assert found["class"].item() == pytest.approx(entropy / 5, rel=1e-3)
    assert found["box"].item() == pytest.approx(moved / 5, rel=1e-2)


def test_proposals_are_thinned_by_the_one_suppression():
    network = FasterRcnn(64, 3, FasterRcnnShape(proposals=7), pretrained=False)
    generator = torch.Generator().manual_seed(0)
    boxes, sure = random_boxes(80, generator), torch.rand(80, generator=generator)
    boxes[5, 2] = boxes[5, 0]  # no width
    found = network._thinned(boxes, sure)
    rows = [row for row in range(80) if row != 5]
    kept = nms(boxes[rows].numpy(), sure[rows].numpy(), SUPPRESSED_IOU, 7)
    assert torch.equal(found, boxes[rows][kept])


def test_the_exported_proposals_are_the_best_by_objectness():
    torch.manual_seed(0)
    network = FasterRcnn(64, 3, FasterRcnnShape(exported=9)).eval()
    pictures = two_pictures(64)[0]
    with torch.no_grad():
        shared = network.map(pictures)
        boxes, sure = network._ranked(*network.proposer([network.look(shared)]))
        orders = sure.argsort(dim=1, descending=True)[:, :9]
        ranked = torch.stack([of_one[order] for of_one, order in zip(boxes, orders, strict=True)])
        assert torch.allclose(network(pictures)[0], network.head(shared, ranked)[0], atol=1e-6)


def test_proposal_losses_judge_few_enough_anchors_one_by_one():
    """With fewer anchors than a sample has room for, the sample is all that are judged."""
    anchors, generator = anchors_in_rows(), torch.Generator().manual_seed(4)
    logits, offsets = torch.randn(2, 120, 2, generator=generator), torch.randn(2, 120, 4, generator=generator)
    targets = [
        Targets(random_boxes(3, generator), torch.tensor([0, 1, 2]), random_boxes(1, generator)),
        Targets(NO_BOXES, NO_LABELS, NO_BOXES),
    ]
    found = proposal_losses(logits, offsets, anchors, targets)
    classes, boxes = [], []
    for row, of_one in enumerate(targets):
        matched = match(
            corners(anchors), of_one.boxes, of_one.ignored, positive=POSITIVE_IOU, negative=NEGATIVE_IOU
        )
        for place, kind in enumerate(matched.target.tolist()):
            if kind >= 0:
                classes.append(-logits[row, place].log_softmax(0)[0 if kind else 1].item())
            if kind == 1:
                wanted = encode(of_one.boxes[matched.box[place]], anchors[place])
                boxes.append(F.smooth_l1_loss(offsets[row, place], wanted, reduction="sum").item())
    assert found["proposal class"].item() == pytest.approx(sum(classes) / len(classes), rel=1e-4)
    assert found["proposal box"].item() == pytest.approx(sum(boxes) / len(boxes), rel=1e-4)


@pytest.mark.parametrize("losses", [proposal_losses, ssd_losses])
def test_anchors_in_an_ignored_region_get_no_gradient(losses):
    anchors = anchors_in_rows()
    logits = torch.zeros(1, 120, 2, requires_grad=True)
    offsets = torch.zeros(1, 120, 4, requires_grad=True)
    region = torch.tensor([[0.0, 0.0, 0.6, 0.6]])
    terms = losses(logits, offsets, anchors, [Targets(NO_BOXES, NO_LABELS, region)])
    sum(terms.values()).backward()
    inside = iou_and_cover(corners(anchors), region)[1][:, 0] >= COVERED
    assert inside.any()
    assert not logits.grad[0, inside].any()
    assert logits.grad[0, ~inside].any()
