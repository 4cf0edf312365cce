"""What the contract asks of every architecture: it learns, it exports, ignored regions cost it nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit.training.tiny_boxes import NO_BOXES, NO_LABELS, random_boxes, two_pictures
from training.detection.contract import Targets
from training.detection.export import export_graph
from training.detection.recipe import Model
from training.models.detectors.rcnn import Rcnn
from training.quantize import session

TRAINED = ["modern", "dsod", "ssd", "yolo", "faster_rcnn", "fast_rcnn"]
SIZE = 96


def built(architecture, size=SIZE):
    torch.manual_seed(0)
    network = Model(architecture=architecture, size=size).build(3)
    if isinstance(network, Rcnn):
        torch.nn.init.normal_(network.svms.weight, std=0.1)
        torch.nn.init.normal_(network.regressions.weight, std=0.1)
    return network


@pytest.mark.parametrize("architecture", TRAINED)
def test_a_few_steps_on_one_batch_lower_the_loss(architecture):
    network = built(architecture).train()
    pictures, targets = two_pictures(SIZE)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for _ in range(18):
        loss = sum(network.losses(pictures, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert np.mean(history[-2:]) < 0.5 * history[0]


@pytest.mark.parametrize("architecture", [*TRAINED, "rcnn"])
def test_the_exported_graph_gives_what_torch_gives(architecture, tmp_path):
    network = built(architecture).eval()
    spec = Model(size=SIZE).input
    export_graph(network, tmp_path / "graph.onnx", spec)
    pictures = two_pictures(SIZE)[0]
    feeds = {spec.name: pictures}
    if network.needs_proposals:
        rows = random_boxes(10, torch.Generator().manual_seed(0))
        feeds["proposals"] = torch.stack([rows[:5], rows[5:]])
    with torch.no_grad():
        boxes, scores = network(*feeds.values())
    found = session(tmp_path / "graph.onnx").run(
        ["boxes", "scores"], {name: x.numpy() for name, x in feeds.items()}
    )
    assert boxes.shape == (2, scores.shape[1], 4)
    assert scores.shape[2] == 3
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert found[0] == pytest.approx(boxes.numpy(), abs=1e-3)
    assert found[1] == pytest.approx(scores.numpy(), abs=1e-3)


@pytest.mark.parametrize("architecture", TRAINED)
def test_where_all_is_ignored_there_is_no_loss(architecture):
    network = built(architecture, 128).train()  # whole cells of all strides: no point lies on the edge
    pictures = two_pictures(128)[0]
    everything = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    proposals = random_boxes(20, torch.Generator().manual_seed(0))
    targets = [Targets(NO_BOXES, NO_LABELS, everything, proposals)] * 2
    assert sum(network.losses(pictures, targets).values()).item() == 0.0
    empty = [Targets(NO_BOXES, NO_LABELS, NO_BOXES, proposals)] * 2
    assert sum(network.losses(pictures, empty).values()).item() > 0.0


@pytest.mark.parametrize("architecture", ["ssd", "yolo", "faster_rcnn", "fast_rcnn"])
def test_a_detector_of_more_classes_takes_over_what_the_old_one_knew(architecture):
    old = built(architecture).eval()
    torch.manual_seed(1)
    grown = Model(architecture=architecture, size=SIZE).build(5).eval()
    with torch.no_grad():
        for parameter in old.parameters():  # so that nothing stands at its first value
            parameter.add_(0.01 * torch.randn_like(parameter))
        grown.take_over(old)
        more = [torch.stack([random_boxes(6, torch.Generator().manual_seed(0))] * 2)]
        feed = [two_pictures(SIZE)[0], *(more if old.needs_proposals else [])]
        boxes, scores = old(*feed)
        new_boxes, new_scores = grown(*feed)
    assert torch.allclose(boxes, new_boxes, atol=1e-5)
    if architecture == "yolo":
        assert torch.allclose(scores, new_scores[:, :, :3], atol=1e-5)
    else:  # but for the new classes, the softmax is what it was, nothing included
        nothing, new_nothing = (1 - rows.sum(dim=2, keepdim=True) for rows in (scores, new_scores))
        left = torch.cat([new_scores[:, :, :3], new_nothing], dim=2)
        expected = torch.cat([scores, nothing], dim=2)
        assert torch.allclose(left, expected * left.sum(dim=2, keepdim=True), atol=1e-5)
