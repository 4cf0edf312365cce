from __future__ import annotations

import math

import pytest
import torch

from training.detection.losses import focal_loss, giou_loss


def test_focal_loss_equals_its_formula_element_by_element():
    logits = torch.linspace(-4, 4, 9)
    targets = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1, 0], dtype=torch.float32)
    total = 0.0
    for logit, target in zip(logits.tolist(), targets.tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        right = p if target else 1 - p
        total += (0.4 if target else 0.6) * (1 - right) ** 2 * -math.log(right)
    assert focal_loss(logits, targets, alpha=0.4, gamma=2.0).item() == pytest.approx(total, rel=1e-5)


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
