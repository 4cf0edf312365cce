from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.unit.vision import tiny_models
from training.commands.boxes import command
from training.datasets import coco_boxes
from training.datasets.box_findings import BoxFindings
from training.detection.completeness import suspects

CUP, HAT, SHOE = [0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.05, 0.6, 0.35, 0.95]


def detect(_image):
    """CUP, HAT and SHOE, whatever the picture."""
    return np.array([CUP, HAT, SHOE], np.float32), np.array([0.9, 0.8, 0.4], np.float32), np.array([0, 1, 0])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos: cup and hat; the cup alone; a crowd where the hat is."""
    folder = tmp_path / "photos"
    folder.mkdir()
    known = [[(CUP, 0), (HAT, 0)], [(CUP, 0)], [(CUP, 0), ([0.45, 0.45, 1.0, 1.0], 1)]]
    images = [
        {"id": row, "file_name": f"{row}.png", "width": 100, "height": 100} for row in range(len(known))
    ]
    annotations = []
    for row, boxes in enumerate(known):
        Image.new("RGB", (100, 100), (127, 127, 127)).save(folder / f"{row}.png")
        for (x0, y0, x1, y1), crowd in boxes:
            bbox = [100 * x0, 100 * y0, 100 * (x1 - x0), 100 * (y1 - y0)]
            annotations.append({"image_id": row, "category_id": 1, "bbox": bbox, "iscrowd": crowd})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_a_removed_annotation_is_found_again(photos):
    read = coco_boxes.read(photos, BoxFindings())
    (found,) = suspects(read, detect, ("cup", "hat"))
    assert (found.photo, found.label) == (1, "hat")
    assert found.box == pytest.approx(HAT)
    lower = suspects(read, detect, ("cup", "hat"), min_score=0.3)
    assert [one.photo for one in lower] == [1, 0, 1, 2]  # the hat, then three shoes that nobody annotated
    assert [one.score for one in lower] == sorted((one.score for one in lower), reverse=True)


def test_the_report_counts_and_shows_them(photos, tmp_path):
    card = tiny_models.detector(tmp_path, np.array([CUP, HAT]), np.array([[0.9], [0.8]]))
    card.save(tmp_path / "detector.card.json")
    page = tmp_path / "suspects.html"
    arguments = ["report", str(photos), "--model", str(tmp_path / "detector.card.json"), "--html", str(page)]
    answer = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    figures = json.loads(answer.stdout)
    assert figures["classes"] == {"thing": 4}
    assert figures["sizes"] == {"small": 0, "medium": 0, "large": 4}
    (found,) = figures["suspects"]
    assert (found["file"], found["label"]) == ("1.png", "product")
    assert found["box"] == pytest.approx(HAT, abs=0.01)
    text = page.read_text()
    assert "1.png" in text
    assert text.count("data:image/jpeg;base64,") == 1
    said = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "1 things on 1 photos" in said.stderr
    assert "thing" in said.stdout


def test_tasks_with_a_model_are_those_of_suspected_photos(photos, tmp_path):
    card = tiny_models.detector(tmp_path, np.array([CUP, HAT]), np.array([[0.9], [0.8]]))
    card.save(tmp_path / "detector.card.json")
    out = tmp_path / "out" / "tasks.json"
    arguments = ["tasks", str(photos), "--model", str(tmp_path / "detector.card.json"), "--out", str(out)]
    CliRunner().invoke(command, arguments, catch_exceptions=False)
    (made,) = json.loads(out.read_text())
    assert made["data"]["file"] == "1.png"
    assert len(made["predictions"][0]["result"]) == 2
    assert 'value="product"' in (out.parent / "label-config.xml").read_text()
    CliRunner().invoke(command, [*arguments, "--all"], catch_exceptions=False)
    assert len(json.loads(out.read_text())) == 3


def test_findings_are_listed_and_are_no_failure(photos):
    content = json.loads((photos / "annotations.json").read_text())
    content["annotations"][0]["bbox"] = [90, 90, 50, 50]
    (photos / "annotations.json").write_text(json.dumps(content))
    answer = CliRunner().invoke(command, ["report", str(photos)], catch_exceptions=False)
    assert answer.exit_code == 0
    assert "1 x outside the picture: clipped to the picture" in answer.stdout
    nobody = CliRunner().invoke(command, ["report", str(photos), "--split", "train"])
    assert nobody.exit_code == 1
    assert "has no photo of train" in str(nobody.exception)


@pytest.mark.parametrize("words", [[], ["report"], ["tasks"], ["import"]])
def test_help_has_examples(words):
    answer = CliRunner().invoke(command, [*words, "--help"])
    assert "Examples:" in answer.output
