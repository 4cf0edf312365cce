from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.training.tiny_boxes import NO_BOXES, random_boxes
from training.detection.contract import Targets
from training.detection.matching import iou_and_cover
from training.detection.task_alignment import POINTS_A_BOX, assign


def inside(point, box):
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]


def told_point_by_point(scores, boxes, points, truth, labels):
    """The rule of the module's docstring in loops: for each point its box, and its quality."""
    overlap = iou_and_cover(boxes, truth)[0].tolist()
    places = points.tolist()
    alignment, wants = {}, {}
    for n, box in enumerate(truth.tolist()):
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        candidates = [p for p, point in enumerate(places) if inside(point, box)]
        candidates = candidates or [min(range(len(places)), key=lambda p: math.dist(places[p], middle))]
        for p in candidates:
            good = scores[p, labels[n]].item() * overlap[p][n] ** 6
            alignment[p, n] = good + 1e-9 / (1 + math.dist(places[p], middle))
        for p in sorted(candidates, key=lambda p: -alignment[p, n])[:POINTS_A_BOX]:
            wants.setdefault(p, []).append(n)
    chosen = {p: max(ns, key=lambda n: overlap[p][n]) for p, ns in wants.items()}
    quality = {}
    for p, n in chosen.items():
        mine = [q for q, m in chosen.items() if m == n]
        most = max(alignment[q, n] for q in mine)
        quality[p] = alignment[p, n] / most * max(overlap[q][n] for q in mine)
    return chosen, quality


@given(st.integers(0, 10_000), st.integers(0, 4))
@settings(max_examples=60)
def test_assignment_equals_the_rule_told_point_by_point(seed, count):
    generator = torch.Generator().manual_seed(seed)
    steps = (torch.arange(6) + 0.5) / 6
    points = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=2).reshape(-1, 2)
    points = points + torch.rand(36, 2, generator=generator) * 0.01  # so that no two are as near
    scores = torch.rand(36, 3, generator=generator)
    boxes, truth = random_boxes(36, generator), random_boxes(count, generator, least=0.05)
    labels = torch.randint(3, (count,), generator=generator)
    found = assign(scores, boxes, points, Targets(truth, labels, NO_BOXES))
    chosen, quality = told_point_by_point(scores, boxes, points, truth, labels)
    for p in range(36):
        assert found.box[p].item() == chosen.get(p, -1)
        row = [0.0] * 3
        if p in chosen:
            row[labels[chosen[p]]] = quality[p]
        assert found.quality[p].tolist() == pytest.approx(row, abs=1e-4)
    assert found.judged.all()


def test_points_in_an_ignored_region_are_not_judged_but_those_of_a_box_in_it():
    points = torch.tensor([[0.1, 0.1], [0.4, 0.4], [0.9, 0.9]])
    boxes = torch.cat([points - 0.05, points + 0.05], dim=1)
    targets = Targets(
        torch.tensor([[0.3, 0.3, 0.5, 0.5]]), torch.tensor([0]), torch.tensor([[0.0, 0.0, 0.6, 0.6]])
    )
    found = assign(torch.rand(3, 1), boxes, points, targets)
    assert found.judged.tolist() == [False, True, True]
