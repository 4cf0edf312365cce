from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from magpie.errors import InvalidArgument
from magpie.tables.problems import BadFile
from training.datasets import coco_boxes, voc_boxes
from training.datasets.box_findings import OUTCOMES, BoxFindings
from training.detection.recipe import BoxData, DetectionRecipe
from training.detection.sources import annotated, read_boxes, read_pictures

CATEGORIES = [{"id": 7, "name": "cup"}, {"id": 9, "name": "hat"}]


def image(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.png", "width": 200, "height": 100} | changes


def box(image_id: int, bbox: Any, category: int = 7, **changes: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category, "bbox": bbox} | changes


def coco(folder: Path, images: list[dict[str, Any]], boxes: list[dict[str, Any]]) -> Path:
    """A data set whose pictures are 200 x 100 px."""
    for entry in images:
        Image.new("RGB", (200, 100), "white").save(folder / entry["file_name"])
    numbered = [{"id": row, **entry} for row, entry in enumerate(boxes)]
    content = {"images": images, "annotations": numbered, "categories": CATEGORIES}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def read(folder: Path) -> tuple[list[Any], BoxFindings]:
    findings = BoxFindings()
    return coco_boxes.read(folder, findings), findings


def test_coco_boxes_become_fractions_and_keep_their_split(tmp_path):
    images = [image(1, split="train"), image(2, split="test")]
    coco(tmp_path, images, [box(1, [20, 10, 100, 50]), box(2, [0, 0, 200, 100], 9)])
    photos, findings = read(tmp_path)
    assert [photo.split for photo in photos] == ["train", "test"]
    assert photos[0].boxes.tolist() == [pytest.approx([0.1, 0.1, 0.6, 0.6])]
    assert [photo.categories for photo in photos] == [("cup",), ("hat",)]
    assert findings.counts == {}
    assert findings.summary() == ""
    assert coco_boxes.read(tmp_path / "annotations.json", BoxFindings())[1].path == photos[1].path


@pytest.mark.parametrize(
    ("bbox", "kind", "kept"),
    [
        ([150, 50, 100, 20], "outside the picture", [0.75, 0.5, 1.0, 0.7]),
        ([-30, 20, 60, 20], "outside the picture", [0.0, 0.2, 0.15, 0.4]),
        ([250, 50, 10, 10], "no area", None),
        ([50, 50, 0, 10], "no area", None),
        ([50, 50, 10, -10], "no area", None),
        ([50, 50, 10], "no box", None),
        (None, "no box", None),
        ([50, 50, float("nan"), 10], "no box", None),
        (["a", 1, 2, 3], "no box", None),
    ],
)
def test_bad_boxes_are_listed_and_clipped_where_something_is_left(tmp_path, bbox, kind, kept):
    coco(tmp_path, [image(1)], [box(1, bbox), box(1, [10, 10, 20, 20])])
    (photo,), findings = read(tmp_path)
    assert findings.counts == {kind: 1}
    assert findings.found[0].where.startswith("annotation 0")
    expected = ([pytest.approx(kept)] if kept else []) + [pytest.approx([0.05, 0.1, 0.15, 0.3])]
    assert photo.boxes.tolist() == expected


def test_half_a_pixel_outside_is_rounding(tmp_path):
    coco(tmp_path, [image(1)], [box(1, [-0.4, 10, 50, 20])])
    (photo,), findings = read(tmp_path)
    assert findings.counts == {}
    assert photo.boxes[0, 0] == 0


def test_an_unknown_class_is_ignored_and_not_background(tmp_path):
    crowd = box(1, [100, 0, 50, 50], iscrowd=1)
    coco(tmp_path, [image(1)], [box(1, [10, 10, 20, 20], 5), crowd])
    (photo,), findings = read(tmp_path)
    assert findings.counts == {"unknown class": 1}
    assert len(photo.boxes) == 0
    assert [pytest.approx(region) for region in photo.ignored] == [
        (0.05, 0.1, 0.15, 0.3),
        (0.5, 0, 0.75, 0.5),
    ]
    (labelled,) = annotated(BoxData(str(tmp_path)), Path("/"), ("cup", "hat"))
    assert len(labelled.ignored) == 2


def test_pictures_without_boxes_stay_and_what_names_no_picture_is_listed(tmp_path):
    coco(tmp_path, [image(1), image(2)], [box(1, [10, 10, 20, 20]), box(3, [10, 10, 20, 20])])
    photos, findings = read(tmp_path)
    assert len(photos) == 2
    assert findings.counts == {"picture without boxes": 1, "unknown image": 1}


def test_duplicate_ids_missing_and_unreadable_files(tmp_path):
    images = [image(1), image(1, file_name="again.png"), image(2), image(3)]
    coco(tmp_path, images, [box(number, [10, 10, 20, 20]) for number in (1, 2, 3)])
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").write_bytes(b"no picture")
    photos, findings = read(tmp_path)
    assert [photo.path.name for photo in photos] == ["1.png"]
    assert findings.counts == {"duplicate image id": 1, "missing file": 1, "unreadable file": 1}
    assert "again.png" in str(findings.found[0])
    assert OUTCOMES["missing file"] in findings.summary()


def test_boxes_follow_the_size_that_their_file_names(tmp_path):
    coco(
        tmp_path,
        [image(1, width=400, height=200), image(2, width=0)],
        [box(1, [40, 20, 200, 100]), box(2, [20, 10, 100, 50])],
    )
    photos, findings = read(tmp_path)
    assert findings.counts == {"other size": 1}  # the second names none: it is the picture's own
    assert [photo.boxes.tolist() for photo in photos] == [[pytest.approx([0.1, 0.1, 0.6, 0.6])]] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: is no JSON"),
        ("[]", "is no COCO file"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', r"images\[0\] has no `file_name`"),
    ],
)
def test_files_that_are_no_coco_are_refused(tmp_path, text, message):
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(BadFile, match=message):
        read(tmp_path)
    with pytest.raises(InvalidArgument, match="nowhere is missing"):
        read(tmp_path / "nowhere")


def voc(folder: Path, name: str, objects: str, database: str = "The VOC2007 Database") -> None:
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "JPEGImages").mkdir(exist_ok=True)
    Image.new("RGB", (200, 100), "white").save(folder / "JPEGImages" / f"{name}.jpg")
    (folder / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><filename>{name}.jpg</filename><source><database>{database}</database></source>"
        f"<size><width>200</width><height>100</height></size>{objects}</annotation>"
    )


def voc_object(x0: float, y0: float, x1: float, y1: float, name: str = "cup", more: str = "") -> str:
    sides = f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>"


def test_voc_and_coco_give_the_same(tmp_path):
    rng = np.random.default_rng(0)
    images, boxes = [], []
    (tmp_path / "coco").mkdir()
    (tmp_path / "voc" / "ImageSets" / "Main").mkdir(parents=True)
    for number in range(1, 6):
        images.append(image(number, split="train" if number % 2 else "test"))
        objects = ""
        for _ in range(number - 1):
            x, y, width, height = (int(v) for v in rng.integers(1, 40, 4))
            category = int(rng.choice([7, 9]))
            boxes.append(box(number, [x, y, width, height], category))
            objects += voc_object(x + 1, y + 1, x + width, y + height, "cup" if category == 7 else "hat")
        voc(tmp_path / "voc", str(number), objects)
    for split in ("train", "test"):
        names = [str(one["id"]) for one in images if one["split"] == split]
        (tmp_path / "voc/ImageSets/Main" / f"{split}.txt").write_text("\n".join(names))
    (tmp_path / "voc/ImageSets/Main/cup_train.txt").write_text("1 -1\n3 1\n")
    (tmp_path / "voc/ImageSets/Main/trainval.txt").write_text("1\n2\n3\n4\n5\n")
    ours = coco_boxes.read(coco(tmp_path / "coco", images, boxes), BoxFindings())
    findings = BoxFindings()
    theirs = voc_boxes.read(tmp_path / "voc", findings)
    assert findings.counts == {"picture without boxes": 1}
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one.boxes, other.boxes)
        assert (one.categories, one.split) == (other.categories, other.split)
    train = read_boxes(BoxData(str(tmp_path / "voc"), "voc", ("train",)), Path("/"), BoxFindings())
    assert len(train) == 3


def test_voc_difficult_is_ignored_and_bad_objects_are_listed(tmp_path):
    objects = (
        voc_object(1, 1, 50, 50, more="<difficult>1</difficult>")
        + voc_object(1, 1, 300, 50)
        + voc_object(60, 1, 50, 50)
        + "<object><name>cup</name><bndbox><xmin>1</xmin></bndbox></object>"
        + voc_object(1, 1, 20, 20, name=" ")
    )
    voc(tmp_path, "a", objects)
    findings = BoxFindings()
    (photo,) = voc_boxes.read(tmp_path, findings)
    assert findings.counts == {"outside the picture": 1, "no area": 1, "no box": 1, "unknown class": 1}
    assert photo.categories == ("cup",)
    assert len(photo.ignored) == 2


def test_voc_files_that_are_none_are_all_named(tmp_path):
    voc(tmp_path, "a", "")
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation>")
    (tmp_path / "Annotations" / "c.xml").write_text("<other/>")
    with pytest.raises(BadFile) as caught:
        voc_boxes.read(tmp_path, BoxFindings())
    assert "b.xml" in str(caught.value)
    assert "c.xml" in str(caught.value)
    with pytest.raises(InvalidArgument, match="no XML files"):
        voc_boxes.read(tmp_path / "JPEGImages", BoxFindings())


def test_only_some_categories_as_if_the_rest_were_not_annotated(tmp_path):
    coco(
        tmp_path,
        [image(1), image(2), image(3)],
        [box(1, [10, 10, 20, 20]), box(1, [50, 10, 20, 20], 9), box(2, [10, 10, 20, 20], 9)],
    )
    photos = read_boxes(BoxData(str(tmp_path), only=("cup",)), Path("/"), BoxFindings())
    assert [(photo.path.name, photo.categories) for photo in photos] == [
        ("1.png", ("cup",)), ("2.png", ()), ("3.png", ()),
    ]  # fmt: skip
    assert [len(photo.boxes) for photo in photos] == [1, 0, 0]
    assert not any(photo.ignored for photo in photos)


def test_a_category_that_the_taxonomy_has_no_place_for_is_refused(tmp_path):
    coco(tmp_path, [image(1)], [box(1, [10, 10, 20, 20], 9)])
    with pytest.raises(InvalidArgument, match="boxes of `hat`: did you mean `hats`"):
        annotated(BoxData(str(tmp_path)), Path("/"), ("cup", "hats"))
    (mapped,) = annotated(BoxData(str(tmp_path), classes={"hat": "hats"}), Path("/"), ("cup", "hats"))
    assert mapped.labels.tolist() == [1]
    (ignored,) = annotated(BoxData(str(tmp_path), ignored=("hat",)), Path("/"), ("cup", "hats"))
    assert len(ignored.ignored) == 1
    (any_product,) = annotated(BoxData(str(tmp_path)), Path("/"), ("product",))
    assert any_product.labels.tolist() == [0]


def test_other_tools_count_pixels_from_0(tmp_path):
    voc(tmp_path, "a", voc_object(0, 0, 50, 50), database="Unknown")
    findings = BoxFindings()
    (photo,) = voc_boxes.read(tmp_path, findings)
    assert findings.counts == {}
    assert photo.boxes.tolist() == [pytest.approx([0, 0, 0.25, 0.5])]
    assert photo.name == "JPEGImages/a.jpg"


def test_a_missing_picture_is_named_where_pictures_lie(tmp_path):
    voc(tmp_path, "a", voc_object(1, 1, 50, 50))
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    findings = BoxFindings()
    assert voc_boxes.read(tmp_path, findings) == []
    (found,) = findings.found
    assert (found.kind, found.where) == ("missing file", "JPEGImages/a.jpg")


def test_a_picture_that_bears_the_annotations_name_is_taken(tmp_path):
    voc(tmp_path, "a", voc_object(1, 1, 50, 50))
    (tmp_path / "JPEGImages" / "a.jpg").rename(tmp_path / "JPEGImages" / "a.png")
    findings = BoxFindings()
    assert len(voc_boxes.read(tmp_path, findings)) == 1
    assert findings.counts == {}


def test_a_file_that_was_cut_off_is_unreadable(tmp_path):
    coco(tmp_path, [image(1, file_name="1.jpg")], [box(1, [10, 10, 20, 20])])
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (100, 200, 3), np.uint8)).save(tmp_path / "1.jpg")
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:4000])
    photos, findings = read(tmp_path)
    assert (photos, findings.counts) == ([], {"unreadable file": 1})


@pytest.mark.parametrize("upright", [True, False])
def test_a_phone_s_photo_is_read_as_it_was_annotated(tmp_path, upright):
    size = {"width": 100, "height": 200} if upright else {"width": 200, "height": 100}
    coco(tmp_path, [image(1, file_name="1.jpg", **size)], [box(1, [10, 10, 20, 20])])
    stored = Image.new("RGB", (200, 100), "white")
    exif = stored.getexif()
    exif[0x0112] = 6
    stored.save(tmp_path / "1.jpg", exif=exif)
    (photo,), findings = read(tmp_path)
    assert findings.counts == {}
    assert photo.load().size == (size["width"], size["height"])


def test_one_file_of_two_images_is_listed(tmp_path):
    images = [image(1), image(2, file_name="1.png")]
    coco(tmp_path, images, [box(1, [10, 10, 20, 20]), box(2, [10, 10, 20, 20])])
    photos, findings = read(tmp_path)
    assert len(photos) == 2
    assert findings.counts == {"duplicate file": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ["a.png"]}, r"images\[0\] is no object"),
        ({"annotations": [3]}, r"annotations\[0\] is no object"),
        ({"annotations": [{"image_id": [1]}]}, r"`image_id` is \[1\], not a number"),
        ({"categories": [*CATEGORIES, {"id": 7, "name": "again"}]}, "category id '7' is there 2 times"),
    ],
)
def test_entries_that_cannot_be_read_are_named(tmp_path, changes, message):
    content = {"images": [], "annotations": [], "categories": CATEGORIES} | changes
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(BadFile, match=message):
        read(tmp_path)


def test_mended_boxes_make_another_pool(tmp_path):
    recipe = DetectionRecipe(data=(BoxData("photos"),), taxonomy=("cup", "hat"), development=0.0, pool=64)
    (tmp_path / "photos").mkdir()
    for count in (1, 2):
        coco(tmp_path / "photos", [image(1)], [box(1, [10 * n, 10, 20, 20]) for n in range(count)])
        (pool,) = read_pictures(recipe, tmp_path, None, tmp_path / "pools").pools
        assert len(pool.boxes[0]) == count


def test_a_teacher_that_is_missing_is_missed_before_scenes_are_drawn(tmp_path):
    """The composites, which come first, would be refused for data that is not there."""
    recipe = DetectionRecipe(data=(BoxData(kind="composites"), BoxData(kind="groceries")))
    with pytest.raises(InvalidArgument, match="--teacher"):
        read_pictures(recipe, tmp_path, None, tmp_path / "pools")
