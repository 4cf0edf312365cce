from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magpie.errors import FailedPrecondition
from magpie.vision.bundle import Bundle
from tests.unit.training import tiny_release
from tests.unit.vision import tiny_models
from training.detection.recipe import BoxData
from training.evaluation.suite import BoxSet
from training.release.old_classes import lost_classes

CUP, HAT = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
BOTH = np.array([CUP, HAT, [0.0, 0.8, 0.1, 0.9]])


@pytest.fixture
def photos(tmp_path: Path) -> BoxSet:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (100, 100), "white").save(folder / "a.png")
    boxes = [(1, CUP), (2, HAT)]
    (folder / "annotations.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100, "split": "test"}],
                "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "hat"}],
                "annotations": [
                    {
                        "id": n,
                        "image_id": 1,
                        "category_id": label,
                        "bbox": [100 * x0, 100 * y0, 100 * (x1 - x0), 100 * (y1 - y0)],
                    }
                    for n, (label, (x0, y0, x1, y1)) in enumerate(boxes)
                ],
            }
        )
    )
    return BoxSet("photos", BoxData(data="photos"))


def bundle(folder: Path, taxonomy: tuple[str, ...], scores: list[list[float]]) -> Bundle:
    """Its detector finds CUP and HAT with these scores, whatever the picture."""
    tiny_release.bundle(folder)
    card = tiny_models.detector(folder, BOTH, np.array(scores), taxonomy)
    card.save(folder / "detector.card.json")
    return Bundle.load(folder)


def test_a_class_that_is_no_longer_found_is_named(tmp_path, photos):
    old = bundle(tmp_path / "old", ("cup", "hat"), [[0.9, 0.0], [0.0, 0.9], [0.0, 0.0]])
    new = bundle(tmp_path / "new", ("cup", "hat", "shoe"), [[0.9, 0, 0], [0, 0, 0.9], [0, 0.0, 0.0]])
    (lost,) = lost_classes(old, new, [photos], tmp_path)
    assert (lost.set, lost.label, lost.before, lost.after) == ("photos", "hat", pytest.approx(1.0), 0.0)
    assert "AP50 of `hat` 1.000 -> 0.000" in str(lost)


def test_new_classes_and_better_boxes_pass(tmp_path, photos):
    old = bundle(tmp_path / "old", ("cup", "hat"), [[0.9, 0.0], [0.0, 0.0], [0.0, 0.8]])
    new = bundle(tmp_path / "new", ("cup", "hat", "shoe"), [[0.9, 0, 0], [0, 0.9, 0], [0, 0.0, 0.1]])
    assert lost_classes(old, new, [photos], tmp_path) == []


@pytest.mark.parametrize("name", ["hat", "headgear"])
def test_boxes_of_a_new_class_are_ignored_for_the_detector_that_never_learnt_it(tmp_path, photos, name):
    """It takes the hat for a cup, which is no error of its own; the new one finds the hat, but no cup."""
    if name != "hat":
        photos = replace(photos, boxes=replace(photos.boxes, classes={"hat": name}))
    old = bundle(tmp_path / "old", ("cup", "shoe"), [[0.8, 0.0], [0.9, 0.0], [0.0, 0.0]])
    new = bundle(tmp_path / "new", ("cup", "shoe", name), [[0, 0, 0.3], [0, 0, 0.9], [0, 0.0, 0.0]])
    (lost,) = lost_classes(old, new, [photos], tmp_path)
    assert (lost.label, lost.before, lost.after) == ("cup", pytest.approx(1.0), 0.0)


def test_a_class_cannot_go_nor_the_photos_that_it_is_measured_on(tmp_path, photos):
    old = bundle(tmp_path / "old", ("cup", "hat"), [[0.9, 0.0], [0.0, 0.9], [0.0, 0.0]])
    nowhere = BoxSet("nowhere", BoxData(data="nowhere"))
    new = bundle(tmp_path / "new", ("cup",), [[0.9], [0.8], [0.0]])
    with pytest.raises(FailedPrecondition, match="no longer knows hat"):
        lost_classes(old, new, [photos], tmp_path)
    with pytest.raises(FailedPrecondition, match="nowhere"):
        changed = bundle(tmp_path / "changed", ("cup", "hat"), [[0.8, 0.0], [0.0, 0.9], [0.0, 0.0]])
        lost_classes(old, changed, [nowhere], tmp_path)
