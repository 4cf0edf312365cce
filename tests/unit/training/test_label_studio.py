from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from magpie.tables.problems import BadFile
from training.commands.boxes import command
from training.datasets import coco_boxes
from training.datasets.box_findings import BoxFindings
from training.datasets.label_studio import IGNORED, Prediction, configuration, read_export, task

# As Label Studio writes them, by its documentation (labelstud.io/guide/export): the full form and JSON-MIN.
EXPORT = [
    {
        "id": 11,
        "annotations": [
            {
                "id": 31,
                "completed_by": 1,
                "was_cancelled": False,
                "ground_truth": False,
                "lead_time": 12.3,
                "result": [
                    {
                        "id": "a1",
                        "type": "rectanglelabels",
                        "origin": "manual",
                        "from_name": "label",
                        "to_name": "image",
                        "original_width": 400,
                        "original_height": 300,
                        "image_rotation": 0,
                        "value": {
                            "x": 10.0,
                            "y": 20.0,
                            "width": 25.0,
                            "height": 50.0,
                            "rotation": 0,
                            "rectanglelabels": ["cup"],
                        },
                    },
                    {
                        "id": "a2",
                        "type": "rectanglelabels",
                        "from_name": "label",
                        "to_name": "image",
                        "original_width": 400,
                        "original_height": 300,
                        "image_rotation": 0,
                        "value": {
                            "x": 50.0,
                            "y": 50.0,
                            "width": 25.0,
                            "height": 20.0,
                            "rotation": 90,
                            "rectanglelabels": ["hat"],
                        },
                    },
                    {"id": "a3", "type": "choices", "value": {"choices": ["blurred"]}},
                ],
            }
        ],
        "data": {"image": "/data/local-files/?d=photos/a.jpg"},
        "predictions": [],
    },
    {
        "id": 12,
        "annotations": [{"id": 32, "was_cancelled": True, "result": []}],
        "data": {"image": "https://bucket/photos/b.jpg"},
    },
]
MINIMAL = [
    {
        "image": "/data/local-files/?d=photos/a.jpg",
        "id": 11,
        "label": [
            {
                "x": 10.0,
                "y": 20.0,
                "width": 25.0,
                "height": 50.0,
                "rotation": 0,
                "rectanglelabels": ["cup"],
                "original_width": 400,
                "original_height": 300,
            }
        ],
        "annotator": 1,
        "annotation_id": 31,
    }
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, 5):
        name, size = f"images/{number}.png", (int(rng.integers(50, 400)), int(rng.integers(50, 400)))
        Image.new("RGB", size, "white").save(folder / name)
        split = "train" if number < 3 else "test"
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1], "split": split})
        for _ in range(number - 1):
            x, y = rng.uniform(0, 0.5, 2) * size
            width, height = rng.uniform(0.1, 0.4, 2) * size
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": int(rng.choice([1, 2])),
                    "bbox": [x, y, width, height],
                    "iscrowd": int(rng.random() < 0.3),
                }
            )
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "hat"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_an_export_becomes_coco_and_nothing_goes_without_a_note(tmp_path):
    (tmp_path / "export.json").write_text(json.dumps(EXPORT))
    imported = read_export(tmp_path / "export.json")
    assert [image["file_name"] for image in imported.coco["images"]] == ["a.jpg"]
    assert (imported.coco["images"][0]["width"], imported.coco["images"][0]["height"]) == (400, 300)
    first, turned = imported.coco["annotations"]
    assert first["bbox"] == pytest.approx([40, 60, 100, 150])
    # Turned by a quarter about its upper left corner (200, 150): it lies to the left and below.
    assert turned["bbox"] == pytest.approx([140, 150, 60, 100])
    assert [category["name"] for category in imported.coco["categories"]] == ["cup", "hat"]
    assert len([note for note in imported.notes if "rotated by 90" in note]) == 1
    assert len([note for note in imported.notes if "no rectangles" in note]) == 1
    assert len([note for note in imported.notes if "task 12" in note]) == 2


def test_the_minimal_form_gives_the_same(tmp_path):
    (tmp_path / "export.json").write_text(json.dumps(MINIMAL))
    imported = read_export(tmp_path / "export.json")
    assert imported.coco["annotations"][0]["bbox"] == pytest.approx([40, 60, 100, 150])
    assert imported.coco["images"][0]["file_name"] == "a.jpg"
    assert imported.notes == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no JSON"), ('{"images": []}', "list of tasks"), ("[{}]", "task 1 names no image")],
)
def test_what_is_no_export_is_refused(tmp_path, text, message):
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(BadFile, match=message):
        read_export(tmp_path / "export.json")


def test_the_configuration_names_every_label_and_what_tasks_refer_to():
    root = ElementTree.fromstring(configuration(["cup", 'a "hat" & more']))
    labels = [entry.get("value") for entry in root.iter("Label")]
    assert labels == ["cup", 'a "hat" & more', IGNORED]
    rectangles = root.find("RectangleLabels")
    assert rectangles is not None
    image = root.find("Image")
    assert image is not None
    assert rectangles.get("toName") == image.get("name")
    assert image.get("value") == "$image"


def test_a_task_suggests_what_is_suspected_beside_what_is_known(photos):
    photo = coco_boxes.read(photos, BoxFindings())[3]
    made = task(photo, "s3://bucket/4.png", [Prediction((0.1, 0.2, 0.3, 0.4), "hat", 0.8)], "a model")
    (annotation,), (prediction,) = made["annotations"], made["predictions"]
    assert len(annotation["result"]) == 3
    assert len(prediction["result"]) == 4
    assert (prediction["model_version"], prediction["score"]) == ("a model", 0.8)
    region = prediction["result"][-1]
    assert region["score"] == 0.8
    assert region["value"]["rectanglelabels"] == ["hat"]
    assert [region["value"][side] for side in ("x", "y", "width", "height")] == pytest.approx(
        [10, 20, 20, 20]
    )
    assert (region["original_width"], region["original_height"]) == Image.open(photo.path).size


def test_tasks_and_their_export_bring_every_box_back(photos, tmp_path):
    runner = CliRunner()
    answer = runner.invoke(
        command,
        ["tasks", str(photos), "--out", str(tmp_path / "tasks.json"), "--json"],
        catch_exceptions=False,
    )
    assert json.loads(answer.stdout)["tasks"] == 4
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[2]["data"]["image"] == "/data/local-files/?d=images/3.png"
    # Label Studio numbers tasks and annotations and keeps the rest.
    export = [{"id": row, **entry} for row, entry in enumerate(tasks)]
    (tmp_path / "export.json").write_text(json.dumps(export))
    out = photos / "images" / "annotations.json"  # beside the pictures
    answer = runner.invoke(command, ["import", str(tmp_path / "export.json"), "--out", str(out)])
    assert answer.exit_code == 0
    before = coco_boxes.read(photos, BoxFindings())
    after = coco_boxes.read(out, BoxFindings())
    for one, other in zip(before, after, strict=True):
        size = Image.open(one.path).size
        assert (one.path, one.split, one.categories) == (other.path, other.split, other.categories)
        assert np.abs((one.boxes - other.boxes) * np.array(size * 2)).max(initial=0) < 0.01
        assert np.array(one.ignored) == pytest.approx(np.array(other.ignored), abs=1e-5)
    again = runner.invoke(command, ["import", str(tmp_path / "export.json"), "--out", str(out)])
    assert again.exit_code == 1
    assert "--force" in str(again.exception)
