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
    before = coco_boxes.read(photos, BoxFindings())
    # Label Studio numbers tasks and annotations and keeps the rest.
    export = [{"id": row, **entry} for row, entry in enumerate(tasks)]
    (tmp_path / "export.json").write_text(json.dumps(export))
    out = photos / "annotations.json"
    arguments = ["import", str(tmp_path / "export.json"), "--out", str(out)]
    refused = runner.invoke(command, arguments)
    assert refused.exit_code == 1
    assert f"--onto {out}" in str(refused.exception)
    answer = runner.invoke(command, [*arguments, "--force"])
    assert answer.exit_code == 0
    after = coco_boxes.read(out, BoxFindings())
    for one, other in zip(before, after, strict=True):
        size = Image.open(one.path).size
        assert (one.path, one.split, one.categories) == (other.path, other.split, other.categories)
        assert np.abs((one.boxes - other.boxes) * np.array(size * 2)).max(initial=0) < 0.01
        assert np.array(one.ignored) == pytest.approx(np.array(other.ignored), abs=1e-5)


def test_an_export_of_some_photos_leaves_the_others_as_they_are(photos, tmp_path):
    runner, out = CliRunner(), photos / "annotations.json"
    runner.invoke(command, ["tasks", str(photos), "--out", str(tmp_path / "tasks.json")])
    mended = json.loads((tmp_path / "tasks.json").read_text())[2]
    region = mended["annotations"][0]["result"][0]
    region["value"] |= {"x": 0.0, "y": 0.0, "width": 50.0, "height": 50.0, "rectanglelabels": ["shoe"]}
    (tmp_path / "export.json").write_text(json.dumps([{"id": 3, **mended}]))
    before = coco_boxes.read(photos, BoxFindings())
    answer = runner.invoke(
        command, ["import", str(tmp_path / "export.json"), "--onto", str(out), "--out", str(out)]
    )
    assert answer.exit_code == 0
    after = coco_boxes.read(photos, BoxFindings())
    assert [photo.name for photo in before] == [photo.name for photo in after]
    for row in (0, 1, 3):
        assert before[row].boxes == pytest.approx(after[row].boxes)
        assert (before[row].categories, before[row].split) == (after[row].categories, after[row].split)
    assert "shoe" in after[2].categories
    assert after[2].boxes[after[2].categories.index("shoe")] == pytest.approx([0, 0, 0.5, 0.5])


def test_of_several_annotations_the_newest_counts(tmp_path):
    full, empty = EXPORT[0]["annotations"][0], {"id": 30, "result": []}
    for older, newer in ((empty, full), (full, empty)):
        annotations = [
            newer | {"updated_at": "2026-02-01T10:00:00Z"},
            older | {"updated_at": "2026-01-01T10:00:00Z"},
        ]
        (tmp_path / "export.json").write_text(json.dumps([EXPORT[0] | {"annotations": annotations}]))
        imported = read_export(tmp_path / "export.json")
        assert len(imported.coco["annotations"]) == (2 if newer is full else 0)
        assert any("the newest counts" in note for note in imported.notes)


def test_a_task_that_the_minimal_form_has_twice_is_one_picture(tmp_path):
    first = MINIMAL[0] | {"updated_at": "2026-01-01T10:00:00Z", "label": []}
    second = MINIMAL[0] | {"updated_at": "2026-02-01T10:00:00Z"}
    (tmp_path / "export.json").write_text(json.dumps([second, first]))
    imported = read_export(tmp_path / "export.json")
    assert len(imported.coco["images"]) == 1
    assert len(imported.coco["annotations"]) == 1


def test_boxes_without_a_label_or_a_size_are_told_of(tmp_path):
    label = [MINIMAL[0]["label"][0] | {"rectanglelabels": []}, {"x": 1, "y": 1}]
    (tmp_path / "export.json").write_text(json.dumps([MINIMAL[0] | {"label": label}]))
    imported = read_export(tmp_path / "export.json")
    (ignored,) = imported.coco["annotations"]
    assert ignored["iscrowd"] == 1
    assert any("0 labels" in note for note in imported.notes)
    assert any("'width'" in note for note in imported.notes)


def test_addresses_are_written_as_a_url(photos, tmp_path):
    content = json.loads((photos / "annotations.json").read_text())
    content["images"][0]["file_name"] = "images/a #1.png"
    (photos / "images/1.png").rename(photos / "images/a #1.png")
    (photos / "annotations.json").write_text(json.dumps(content))
    arguments = ["tasks", str(photos), "--image-root", "s3://bucket", "--out", str(tmp_path / "t.json")]
    CliRunner().invoke(command, arguments, catch_exceptions=False)
    data = json.loads((tmp_path / "t.json").read_text())[0]["data"]
    assert data["image"] == "s3://bucket/images/a%20%231.png"
    assert data["file"] == "images/a #1.png"
