from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from magpie.geometry import Box
from magpie.vision.model_card import InputSpec
from training.detection.retrieval import box_policies

SPEC = InputSpec("image", 32, 127.0, 128.0, 127)
RED, BLUE = (220, 30, 30), (30, 30, 220)


def mean_colour(tensor):
    """An embedder that sees nothing but the mean colour."""
    vectors = tensor.mean(axis=(2, 3)) + 1.0
    return {"identity": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)}


@pytest.fixture
def data(tmp_path):
    """Two products; a photo of the red one in the upper left quarter of a blue ground."""
    folder = tmp_path / "grocery-store"
    folder.mkdir()
    Image.new("RGB", (40, 40), RED).save(folder / "red.png")
    Image.new("RGB", (40, 40), BLUE).save(folder / "blue.png")
    photo = Image.new("RGB", (80, 80), BLUE)
    photo.paste(RED, (0, 0, 40, 40))
    photo.save(folder / "photo.png")
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "split", "kind", "product", "department", "category"])
        rows.writerow(["red.png", "gallery", "iconic", "red", "d", "c"])
        rows.writerow(["blue.png", "gallery", "iconic", "blue", "d", "c"])
        rows.writerow(["photo.png", "val", "natural", "red", "d", "c"])
    return tmp_path


def test_a_box_finds_what_the_whole_photo_does_not(data):
    table = box_policies(
        lambda image: Box(0.0, 0.0, 0.5, 0.5) if image.width == 80 else None, mean_colour, SPEC, data
    )
    assert table["photos with a box"] == 1.0
    assert table["catalogue with a box"] == 0.0
    assert table["100% whole, catalogue whole"] == 0.0
    assert table["0% whole, catalogue whole"] == 1.0
    assert table["better of whole and box, catalogue both"] == 1.0


def test_without_boxes_every_policy_is_the_whole_photo(data):
    table = box_policies(lambda image: None, mean_colour, SPEC, data)
    recalls = {value for name, value in table.items() if "whole" in name}
    assert table["photos with a box"] == 0.0
    assert recalls == {0.0}
