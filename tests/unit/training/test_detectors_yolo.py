from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.training.tiny_boxes import NO_BOXES, NO_LABELS, random_boxes
from training.detection.contract import Targets
from training.detection.matching import iou_and_cover
from training.models.detectors.yolo import Yolo, YoloShape, responsible


class Said(Yolo):
    """Answers what it is told to."""

    def predicted(self, maps):
        return self.said


def yolo(cells=3, boxes=2, classes=3, seed=0):
    network = Said(32 * cells, classes, YoloShape(boxes=boxes, width=8, layers=1), pretrained=False)
    generator = torch.Generator().manual_seed(seed)
    network.said = Yolo.predicted(
        network, network.features(torch.zeros(1, 3, 32 * cells, 32 * cells))
    )._replace(
        boxes=torch.rand(1, cells * cells, boxes, 5, generator=generator),
        classes=torch.rand(1, cells * cells, classes, generator=generator),
    )
    return network


def test_the_box_of_the_highest_iou_is_responsible():
    found = torch.tensor([0.0, 0.0, 0.2, 0.2]).repeat(4, 2, 1)  # 2 x 2 cells of two boxes
    truth = torch.tensor([[0.6, 0.1, 0.9, 0.4]])  # centres in the upper right cell
    found[1, 0], found[1, 1] = torch.tensor([0.5, 0.1, 0.9, 0.4]), torch.tensor([0.6, 0.1, 0.9, 0.5])
    cell, box = responsible(found, truth, 2)
    assert (cell.tolist(), box.place.tolist(), box.truth.tolist()) == ([1], [0], [0])
    assert box.overlap.item() == pytest.approx(0.75)
    found[1, 0, 0] = 0.3  # wider: now the other is nearer
    assert responsible(found, truth, 2)[1].place.tolist() == [1]


def test_of_several_truths_in_a_cell_the_largest_counts():
    found = torch.rand(4, 2, 4)
    truth = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.0, 0.0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]])
    cell, box = responsible(found, truth, 2)
    assert dict(zip(cell.tolist(), box.truth.tolist(), strict=True)) == {0: 1, 3: 2}


@given(st.integers(0, 1000), st.integers(0, 4), st.integers(0, 2))
@settings(max_examples=30)
def test_the_loss_is_the_paper_s_sum_cell_by_cell(seed, truths, regions):
    cells, count = 3, 2
    network = yolo(cells, count, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    truth, ignored = random_boxes(truths, generator), random_boxes(regions, generator)
    labels = torch.randint(3, (truths,), generator=generator)
    found = network.losses_on([], [Targets(truth, labels, ignored)])

    said = network.said
    corners = network.decode(said.boxes)[0]
    expected = dict.fromkeys(("coordinates", "confidence", "nothing", "class"), 0.0)
    for cell in range(cells * cells):
        row, column = divmod(cell, cells)
        mine = []
        for n, (x0, y0, x1, y1) in enumerate(truth.tolist()):
            if int((x0 + x1) / 2 * cells) == column and int((y0 + y1) / 2 * cells) == row:
                mine.append(((x1 - x0) * (y1 - y0), n))
        chosen = -1
        if mine:
            n = max(mine)[1]
            overlap = iou_and_cover(corners[cell], truth[n : n + 1])[0][:, 0]
            chosen = int(overlap.argmax())
            x0, y0, x1, y1 = truth[n].tolist()
            x, y, w, h, confidence = said.boxes[0, cell, chosen].tolist()
            expected["coordinates"] += 5 * (
                (x - ((x0 + x1) / 2 * cells - column)) ** 2
                + (y - ((y0 + y1) / 2 * cells - row)) ** 2
                + (w - (x1 - x0) ** 0.5) ** 2
                + (h - (y1 - y0) ** 0.5) ** 2
            )
            expected["confidence"] += (confidence - overlap[chosen].item()) ** 2
            for kind, p in enumerate(said.classes[0, cell].tolist()):
                expected["class"] += (p - (kind == labels[n].item())) ** 2
        x, y = (column + 0.5) / cells, (row + 0.5) / cells
        if any(a < x < c and b < y < d for a, b, c, d in ignored.tolist()):
            continue
        for box in range(count):
            if box != chosen:
                expected["nothing"] += 0.5 * said.boxes[0, cell, box, 4].item() ** 2
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-3, abs=1e-4)


def test_a_perfect_answer_has_no_loss_and_gives_the_box_back():
    network = yolo()
    truth = torch.tensor([[0.4, 0.35, 0.7, 0.9]])  # centre (0.55, 0.625): row 1, column 1
    boxes, classes = torch.zeros(1, 9, 2, 5), torch.zeros(1, 9, 3)
    boxes[0, 4, 0] = torch.tensor([0.65, 0.875, 0.3**0.5, 0.55**0.5, 1.0])
    classes[0, 4, 2] = 1.0
    network.said = network.said._replace(boxes=boxes, classes=classes)
    terms = network.losses_on([], [Targets(truth, torch.tensor([2]), NO_BOXES)])
    assert sum(terms.values()).item() == pytest.approx(0.0, abs=1e-6)
    found, scores = network.found([])
    assert found.shape == (1, 18, 4)
    best = scores[0].max(dim=1).values.argmax()
    assert found[0, best].tolist() == pytest.approx(truth[0].tolist(), abs=1e-5)
    assert scores[0, best].tolist() == [0.0, 0.0, 1.0]


def test_a_cell_whose_middle_is_ignored_may_be_anything():
    network = yolo()
    everything = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    terms = network.losses_on([], [Targets(NO_BOXES, NO_LABELS, everything)])
    assert sum(terms.values()).item() == 0.0
