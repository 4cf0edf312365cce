from __future__ import annotations

import numpy as np
import pytest
import torch

from magpie.errors import FailedPrecondition
from tests.unit.training.tiny_boxes import COLOURS, NO_BOXES, NO_LABELS, two_pictures, write_coco
from training.detection.batches import Batch
from training.detection.contract import Targets
from training.detection.fit_rcnn import FIRST, fit_rcnn, mined_svm
from training.detection.recipe import Batch as BatchOf
from training.detection.recipe import BoxData, DetectionRecipe, Model
from training.detection.runs import trained_network
from training.detection.train import train
from training.models.detectors.rcnn import NEVER, Rcnn, RcnnShape
from training.schedule import Schedule

SHAPE = RcnnShape(crop=32)


def test_mining_takes_in_the_negatives_that_are_hard():
    rng = np.random.default_rng(0)
    positives = rng.normal(4, 0.5, (40, 8)).astype(np.float32)
    easy = rng.normal(-4, 0.5, (FIRST + 500, 8)).astype(np.float32)
    hard = rng.normal(2.5, 0.3, (60, 8)).astype(np.float32)
    shape = RcnnShape(cost=1.0)
    weight, bias, used = mined_svm(positives, np.concatenate([easy, hard]), shape, seed=0)
    assert (positives @ weight + bias > 0).mean() > 0.95
    assert (hard @ weight + bias < 0).mean() > 0.9
    assert used < 500  # the easy ones were dropped


def test_what_is_shown_has_context_and_the_mean_colour_outside():
    network = Rcnn(64, 2, RcnnShape(crop=32, context=0.5), pretrained=False).eval()
    seen = []
    network.network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    network.describe(torch.ones(1, 3, 64, 64), torch.tensor([[[0.0, 0.25, 0.5, 0.75]]]))
    crop = seen[0][0, 0]  # x from -0.125 to 0.625: a sixth lies outside
    assert crop.shape == (32, 32)
    assert not crop[:, :4].any()
    assert (crop[:, 7:] == 1).all()


def test_a_class_without_examples_never_fires_and_one_in_ignored_regions_has_no_negatives():
    pictures, targets = two_pictures(64)
    network = Rcnn(64, 4, SHAPE)
    fit_rcnn(network, [Batch(pictures, targets)], seed=0)
    assert network.svms.bias[3].item() == NEVER
    assert not network.svms.weight[3].any()
    assert network.svms.weight[:3].any(dim=1).all()
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    ignored = tuple(Targets(of_one.boxes, of_one.labels, whole, of_one.proposals) for of_one in targets[:1])
    fit_rcnn(network, [Batch(pictures[:1], ignored)], seed=0)
    assert network.svms.bias.tolist() == [NEVER] * 4  # nothing to tell the boxes from


def test_boxes_are_moved_by_the_best_class_s_regression():
    network = Rcnn(64, 2, SHAPE).eval()
    network.svms.bias.copy_(torch.tensor([-1.0, 1.0]))
    # The second class's: a tenth of the width to the right.
    network.regressions.bias.copy_(torch.tensor([9.0, 9, 9, 9, 1, 0, 0, 0]))
    with torch.no_grad():
        boxes, scores = network(torch.zeros(1, 3, 64, 64), torch.tensor([[[0.2, 0.2, 0.6, 0.6]]]))
    assert boxes[0, 0].tolist() == pytest.approx([0.24, 0.2, 0.64, 0.6])
    assert scores[0, 0].tolist() == pytest.approx([0.2689, 0.7311], abs=1e-4)


def test_it_is_not_trained_by_gradients():
    network = Rcnn(64, 2, SHAPE, pretrained=False)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(NotImplementedError):
        network.losses(torch.zeros(1, 3, 64, 64), [Targets(NO_BOXES, NO_LABELS, NO_BOXES)])


def test_train_fits_it_and_leaves_a_run_that_can_be_read(tmp_path):
    write_coco(tmp_path / "data/tiny", photos=12)
    recipe = DetectionRecipe(
        data=(BoxData("tiny"),),
        taxonomy=tuple(COLOURS),
        development=0.34,
        model=Model(architecture="rcnn", size=96, rcnn=SHAPE),
        batch=BatchOf(pictures=4, steps=3),
        schedule=Schedule(epochs=1),
    )
    out = tmp_path / "run"

    def run(*, resume):
        return train(tmp_path / "data", out, recipe, resume=resume, tracking=None, pools=tmp_path / "pools")

    figures = run(resume=False)
    assert figures["AP50"] > 0.3
    assert (out / "metrics.jsonl").read_text().count("\n") == 1
    network = trained_network(out)
    assert network.svms.weight.any(dim=1).all()
    with pytest.raises(FailedPrecondition, match="holds a run already"):
        run(resume=False)
    assert run(resume=True) == figures


def test_what_is_saved_comes_back(tmp_path):
    network = Rcnn(64, 2, SHAPE, pretrained=False)
    torch.nn.init.normal_(network.svms.weight)
    torch.nn.init.normal_(network.regressions.bias)
    network.save(tmp_path / "rcnn.npz")
    other = Rcnn(64, 2, SHAPE, pretrained=False)
    other.load(tmp_path / "rcnn.npz")
    for name in ("svms", "regressions"):
        for part in ("weight", "bias"):
            assert torch.equal(getattr(getattr(network, name), part), getattr(getattr(other, name), part))
