from __future__ import annotations

import numpy as np
import pytest

from magpie.errors import FailedPrecondition
from magpie.geometry import iou
from magpie.vision.preprocess import to_tensor
from training.detection.export import export_detector, export_graph
from training.detection.proposals import LEAST, MOST, proposed, selective_search
from training.detection.recipe import DetectionRecipe, Model
from training.detection.runs import FITTED, onnx_run, torch_run
from training.models.detectors.rcnn import Rcnn, RcnnShape
from training.run_folder import save_recipe

BOXES = np.array([[0.1, 0.2, 0.4, 0.7], [0.55, 0.1, 0.9, 0.35]], np.float32)


def drawn(side=128, boxes=BOXES):
    pixels = np.random.default_rng(0).integers(110, 130, (side, side, 3)).astype(np.uint8)
    for colour, box in zip([(220, 30, 30), (30, 200, 60)], boxes, strict=False):
        x0, y0, x1, y1 = (box * side).astype(int)
        pixels[y0:y1, x0:x1] = colour
    return pixels


def test_things_that_stand_out_are_proposed():
    found = selective_search(drawn())
    assert (iou(BOXES, found).max(axis=1) > 0.8).all()
    assert found[0].tolist() == [0, 0, 1, 1]
    assert len(found) <= MOST
    assert found.dtype == np.float32
    assert (found[:, 2:] - found[:, :2]).min() >= LEAST - 1e-6
    assert (found >= 0).all()
    assert (found <= 1).all()


def test_proposals_are_the_same_each_time_though_opencv_shuffles_them():
    pixels = np.random.default_rng(1).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    first = selective_search(pixels)
    assert all(np.array_equal(first, selective_search(pixels)) for _ in range(3))


def test_nothing_to_see_is_one_proposal():
    assert selective_search(np.full((64, 64, 3), 127, np.uint8)).tolist() == [[0, 0, 1, 1]]


def test_proposals_of_a_tensor_are_those_of_its_pixels():
    squares = np.stack([drawn(), drawn(boxes=BOXES[:1])])
    found = proposed(to_tensor(squares, Model(size=128).input))
    for rows, pixels in zip(found, squares, strict=True):
        alone = selective_search(pixels)
        assert np.array_equal(rows[: len(alone)], alone)
        assert (rows[len(alone) :] == [0, 0, 1, 1]).all()


def test_both_runs_propose_for_themselves(tmp_path):
    model = Model(architecture="fast_rcnn", size=64)
    network = model.build(2).eval()
    export_graph(network, tmp_path / "graph.onnx", model.input)
    tensor = to_tensor(drawn(64)[None], model.input)
    boxes, scores = torch_run(network)(tensor)
    found = onnx_run(tmp_path / "graph.onnx")(tensor)
    assert len(boxes[0]) == len(selective_search(drawn(64)))
    assert found[0] == pytest.approx(boxes, abs=1e-3)
    assert found[1] == pytest.approx(scores, abs=1e-3)


def test_such_a_detector_is_not_for_a_bundle(tmp_path):
    recipe = DetectionRecipe(model=Model(architecture="rcnn", size=64))
    save_recipe(tmp_path, recipe)
    Rcnn(64, 1, RcnnShape()).save(tmp_path / FITTED)
    with pytest.raises(FailedPrecondition, match="rcnn needs proposals"):
        export_detector(tmp_path, tmp_path, tmp_path / "out", "1.0.0")
