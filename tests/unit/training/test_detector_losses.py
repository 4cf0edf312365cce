from __future__ import annotations

import math

import pytest
import torch

from tests.unit.training.tiny_boxes import random_boxes
from training.detection.box_coding import centred, corners, encode
from training.detection.contract import Targets
from training.detection.losses import focal_loss, giou_loss, varifocal_loss
from training.detection.matching import match
from training.models.detectors.anchor_head import ssd_losses


def test_focal_loss_equals_its_formula_element_by_element():
    logits = torch.linspace(-4, 4, 9)
    targets = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1, 0], dtype=torch.float32)
    total = 0.0
    for logit, target in zip(logits.tolist(), targets.tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        right = p if target else 1 - p
        total += (0.4 if target else 0.6) * (1 - right) ** 2 * -math.log(right)
    assert focal_loss(logits, targets, alpha=0.4, gamma=2.0).item() == pytest.approx(total, rel=1e-5)


def test_varifocal_loss_equals_its_formula_element_by_element():
    logits = torch.linspace(-4, 4, 9)
    quality = torch.tensor([0, 0.3, 0, 1, 0.8, 0, 0, 0.05, 0])
    total = 0.0
    for logit, q in zip(logits.tolist(), quality.tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        if q > 0:
            total -= q * (q * math.log(p) + (1 - q) * math.log(1 - p))
        else:
            total -= 0.75 * p**2 * math.log(1 - p)
    assert varifocal_loss(logits, quality).item() == pytest.approx(total, rel=1e-4)


def test_ssd_losses_equal_the_paper_s_sum_anchor_by_anchor():
    generator = torch.Generator().manual_seed(0)
    anchors = centred(random_boxes(60, generator))
    logits, offsets = torch.randn(2, 60, 4, generator=generator), torch.randn(2, 60, 4, generator=generator)
    targets = [
        Targets(random_boxes(2, generator), torch.tensor([2, 0]), random_boxes(1, generator)),
        Targets(random_boxes(1, generator), torch.tensor([1]), random_boxes(0, generator)),
    ]
    entropy, moved, positives = 0.0, 0.0, 0
    for row, of_one in enumerate(targets):
        matched = match(corners(anchors), of_one.boxes, of_one.ignored)
        empty = []
        for place, kind in enumerate(matched.target.tolist()):
            said = -logits[row, place].log_softmax(0)
            if kind == 1:
                entropy += said[of_one.labels[matched.box[place]]].item()
                wanted = encode(of_one.boxes[matched.box[place]], anchors[place])
                for difference in (offsets[row, place] - wanted).abs().tolist():
                    moved += 0.5 * difference**2 if difference < 1 else difference - 0.5
            elif kind == 0:
                empty.append(said[3].item())
        count = matched.target.tolist().count(1)
        positives += count
        entropy += sum(sorted(empty, reverse=True)[: max(8, 3 * count)])
    found = ssd_losses(logits, offsets, anchors, targets)
    assert found["class"].item() == pytest.approx(entropy / positives, rel=1e-4)
    assert found["box"].item() == pytest.approx(moved / positives, rel=1e-4)


def test_giou_loss_of_known_pairs():
    truth = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert giou_loss(truth, truth).item() == pytest.approx(0.0, abs=1e-6)
    half = torch.tensor([[0.0, 0.0, 0.5, 1.0]])
    assert giou_loss(half, truth).item() == pytest.approx(0.5)  # IoU 1/2, the hull is the union
    apart = torch.tensor([[2.0, 0.0, 3.0, 1.0]])
    assert giou_loss(apart, truth).item() == pytest.approx(1 + 1 / 3)  # a third of the hull is empty


def test_giou_pulls_a_box_that_does_not_touch():
    found = torch.tensor([[2.0, 0.0, 3.0, 1.0]], requires_grad=True)
    giou_loss(found, torch.tensor([[0.0, 0.0, 1.0, 1.0]])).backward()
    assert found.grad is not None
    assert found.grad[0, 0] > 0  # the loss falls as the near edge comes nearer
