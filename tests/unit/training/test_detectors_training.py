"""Training from a recipe to a run folder, on a data set of a few drawn photos."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from magpie.errors import InvalidArgument
from tests.unit.training.tiny_boxes import COLOURS, write_coco
from training.commands.detection import FOLDER
from training.detection.recipe import Batch, BoxData, DetectionRecipe, Model, read_recipe
from training.detection.runs import trained_network
from training.detection.train import train
from training.models.detectors.fast_rcnn import FastRcnnShape
from training.models.detectors.faster_rcnn import FasterRcnnShape
from training.models.detectors.modern import ModernShape
from training.optimizer import Optimizer
from training.schedule import Schedule

RECIPE = DetectionRecipe(
    data=(BoxData("tiny"),),
    taxonomy=tuple(COLOURS),
    development=0.25,
    batch=Batch(pictures=2, steps=3),
    optimizer=Optimizer(lr=1e-3, ema=0.9),
    schedule=Schedule(epochs=2, warmup=2),
    model=Model(
        size=64,
        modern=ModernShape(width=16),
        faster_rcnn=FasterRcnnShape(width=16, hidden=16, proposals=20, exported=20),
        fast_rcnn=FastRcnnShape(width=16, hidden=16),
    ),
)


class Killed(Exception):
    """Stands for a kill at the end of the second epoch, before its checkpoint is written."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    write_coco(folder / "tiny")
    return folder


def recipe_of(architecture):
    return replace(RECIPE, model=replace(RECIPE.model, architecture=architecture))


@pytest.mark.parametrize("architecture", ["modern", "ssd", "yolo", "faster_rcnn", "fast_rcnn"])
def test_a_killed_run_goes_on_to_the_same_weights(architecture, data, tmp_path):
    recipe = recipe_of(architecture)
    epochs = []

    def kill_in_the_second(figures):
        epochs.append(figures)
        if len(epochs) == 2:
            raise Killed

    def run(name, *, resume=False, **watch):
        out = tmp_path / name
        train(data, out, recipe, resume=resume, tracking=None, pools=tmp_path / "pools", **watch)
        return trained_network(out).state_dict()

    straight = run("straight")
    with pytest.raises(Killed):
        run("killed", watch=kill_in_the_second)
    resumed = run("killed", resume=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("straight", "killed")]
    assert lines[0] == lines[1]
    assert len(lines[0].splitlines()) == 2 * (3 + 1)
    assert {"AP", "AP50"} <= set(json.loads(lines[0].splitlines()[-1]))


@pytest.mark.parametrize(
    "architecture", ["modern", "dsod", "ssd", "yolo", "faster_rcnn", "fast_rcnn", "rcnn"]
)
def test_every_architecture_has_a_recipe(architecture):
    name = "cards" if architecture == "modern" else f"cards-{architecture.replace('_', '-')}"
    recipe = read_recipe(FOLDER / f"{name}.toml")
    assert recipe.model.architecture == architecture
    assert recipe.data == read_recipe(FOLDER / "cards.toml").data


def test_boxes_that_a_network_chooses_itself_cannot_be_held_to_an_old_network_s(data, tmp_path):
    recipe = recipe_of("faster_rcnn")
    train(data, tmp_path / "old", recipe, resume=False, tracking=None, pools=tmp_path / "pools")
    longer = replace(recipe, start=str(tmp_path / "old"))
    with pytest.raises(InvalidArgument, match="proposes other boxes"):
        train(data, tmp_path / "new", longer, resume=False, tracking=None, pools=tmp_path / "pools")
