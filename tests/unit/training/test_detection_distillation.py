from __future__ import annotations

import numpy as np
import pytest
import torch

from training.detection.batches import Batch
from training.detection.contract import Targets
from training.detection.distillation import (
    DistillationTask,
    feature_loss,
    on_kept,
    on_labelled,
    response_loss,
    without,
)
from training.detection.recipe import Keep, Model
from training.device import Device
from training.models.detectors.dsod import DsodShape
from training.models.detectors.modern import ModernShape

CPU = Device("cpu", torch.float32)
TINY = {
    "modern": Model("modern", 64, modern=ModernShape(width=16)),
    "dsod": Model("dsod", 64, dsod=DsodShape(stem=8, growth=4, layers=(1, 1, 1, 1), predictor=16)),
}


def targets(boxes, labels=None, ignored=()):
    return Targets(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels if labels is not None else [0] * len(boxes)),
        torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4),
    )


@pytest.mark.parametrize("architecture", TINY)
def test_a_detector_that_grew_answers_as_the_old_one_did(architecture):
    torch.manual_seed(0)
    old = TINY[architecture].build(2, pretrained=False).eval()
    new = TINY[architecture].build(3, pretrained=False).eval()
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for parameter in old.parameters():  # untrained heads answer alike, whatever they see
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        before = new(pictures)[0]
        new.take_over(old)
        boxes, scores = old(pictures)
        own_boxes, own_scores = new(pictures)
    assert not torch.allclose(before, boxes, atol=1e-4)
    assert torch.allclose(own_boxes, boxes, atol=1e-6)
    if architecture == "modern":  # a softmax shares its probability with the new class
        assert torch.allclose(own_scores[..., :2], scores, atol=1e-6)
    else:
        ratio = own_scores[..., 0] / own_scores[..., 1]
        assert torch.allclose(ratio, scores[..., 0] / scores[..., 1], rtol=1e-3)


def test_what_the_old_detector_finds_becomes_an_ignored_region():
    boxes = torch.tensor([[[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9], [0.0, 0.5, 0.2, 0.8]]])
    (changed,) = without([targets([[0.61, 0.6, 0.9, 0.9]])], boxes, torch.tensor([[True, False, False]]))
    assert changed.ignored.tolist() == [pytest.approx([0.1, 0.1, 0.3, 0.3])]
    assert len(changed.boxes) == 1


def test_responses_cost_nothing_where_the_new_one_answers_alike_or_nothing_is_kept():
    boxes = torch.tensor([[[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]]])
    old = torch.tensor([[[1.0, 0.0], [0.0, 0.05]]])
    kept = torch.tensor([[True, False]])

    def loss(new, at=boxes, kept=kept, absent=None):
        of_new = kept if absent is None else absent
        return response_loss(at, torch.tensor([new]), boxes, old, kept, of_new).item()

    alike, other = [[1.0, 0.0, 0.0], [0.7, 0.9, 0.3]], [[0.2, 0.0, 0.0], [0.7, 0.9, 0.3]]
    assert loss(alike) == pytest.approx(0.0, abs=1e-4)
    assert loss(other) == pytest.approx(-np.log(0.2), rel=1e-3)
    assert loss(alike, at=boxes + torch.tensor([[[0.1], [0.0]]])) > 0.5
    nothing = torch.zeros_like(kept)
    assert loss(other, at=boxes + 0.1, kept=nothing) == 0
    # A new class claims what the old one knows, there or by the other box.
    assert loss([[1.0, 0.0, 0.9], [0.7, 0.9, 0.0]]) == pytest.approx(-np.log(0.1), rel=1e-3)
    beside, both = [[1.0, 0.0, 0.0], [0.7, 0.9, 0.3]], torch.tensor([[True, True]])
    assert loss(beside, absent=both) == pytest.approx(-np.log(0.7), rel=1e-3)


THING, INSIDE, ELSEWHERE, ACROSS = (
    [0.1, 0.1, 0.5, 0.5], [0.2, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [0.3, 0.1, 0.7, 0.5],
)  # fmt: skip


def test_boxes_on_old_things_and_boxes_that_are_taken_for_labelled_ones():
    boxes = torch.tensor([[THING, INSIDE, ELSEWHERE, ACROSS]] * 2)
    kept = torch.tensor([[True, False, False, False], [False] * 4])
    assert on_kept(boxes, boxes, kept).tolist() == [[True, True, False, True], [False] * 4]
    known = [targets([ACROSS]), targets([])]
    assert on_labelled(known, boxes).tolist() == [[False, False, False, True], [False] * 4]


class Finds(torch.nn.Module):
    """Finds what it is told to, wherever it looks; its labelled losses are nothing."""

    def __init__(self, boxes, scores):
        super().__init__()
        self.boxes = torch.nn.Parameter(torch.tensor([boxes]))
        self.scores = torch.nn.Parameter(torch.tensor([scores]))
        self.judged = None

    def features(self, pictures):
        return [pictures]

    def found(self, maps):
        return self.boxes, self.scores

    def losses_on(self, maps, judged):
        self.judged = judged
        return {}


def test_no_box_on_an_old_thing_may_be_of_a_new_class_though_the_old_one_does_not_fire_there():
    old = Finds([THING, INSIDE, ELSEWHERE, ELSEWHERE, ACROSS], [[0.8], [0.1], [0.1], [0.1], [0.9]])
    new = Finds([THING, INSIDE, ELSEWHERE, THING, ACROSS], [[0.8, 0.5]] + [[0.1, 0.5]] * 4)
    task = DistillationTask(new, old, Keep(), CPU)
    task(Batch(torch.zeros(1, 3, 8, 8), (targets([ACROSS]),)))["responses"].backward()
    # ACROSS is labelled, so that it may be of the new class, and the old detector is not believed there.
    assert (new.scores.grad[0, :, 1] > 0).tolist() == [True, True, False, True, False]
    assert new.judged[0].ignored.tolist() == [pytest.approx(THING)]


def test_maps_are_compared_relative_to_the_old_ones():
    old = [torch.full((1, 2, 4, 4), 3.0), torch.full((1, 2, 2, 2), 0.1)]
    assert feature_loss(old, old).item() == 0
    assert feature_loss([1.1 * x for x in old], old).item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("architecture", TINY)
def test_before_the_first_step_the_two_see_alike(architecture):
    torch.manual_seed(0)
    old, new = (TINY[architecture].build(classes, pretrained=False) for classes in (1, 2))
    new.take_over(old)
    task = DistillationTask(new, old, Keep(sure=0.0), CPU).train()
    before = {name: value.clone() for name, value in new.named_buffers()}
    something = targets([[0.2, 0.2, 0.6, 0.7]], [1])
    terms = task(Batch(torch.rand(2, 3, 64, 64), (something, something)))
    assert terms["features"].item() == pytest.approx(0.0, abs=1e-9)
    assert all(torch.equal(before[name], value) for name, value in new.named_buffers())


def test_the_old_detector_is_neither_trained_nor_kept():
    torch.manual_seed(0)
    old = TINY["modern"].build(1, pretrained=False)
    new = TINY["modern"].build(2, pretrained=False)
    with torch.no_grad():
        for parameter in old.parameters():  # an untrained network hardly sees anything
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    new.take_over(old)
    task = DistillationTask(new, old, Keep(sure=0.0), CPU).train()
    before = {name: value.clone() for name, value in old.state_dict().items()}
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    batch = Batch(torch.rand(2, 3, 64, 64), (targets([[0.2, 0.2, 0.6, 0.7]], [1]), targets([])))
    terms = task(batch)
    assert set(terms) == {"class", "box", "responses", "features"}
    sum(terms.values()).backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in old.state_dict().items())
    assert not any(name.startswith("_old") for name in task.state_dict())
    assert not torch.equal(new.state_dict()["score_heads.0.weight"][:1], before["score_heads.0.weight"])
