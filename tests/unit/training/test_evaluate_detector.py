"""`magpie evaluate-detector` from end to end: tiny detectors, drawn photos, tables, JSON and pages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from magpie.errors import InvalidArgument, MagpieError
from tests.unit.training import tiny_release
from tests.unit.vision import tiny_models
from training.commands.box_search import search
from training.commands.evaluate_detector import command
from training.detection.box_sets import entry_of, read_set
from training.detection.contender import Contender, contender
from training.detection.evaluate import evaluate
from training.detection.failure_pictures import drawn, failure_pictures
from training.detection.outlined import ERROR
from training.detection.recipe import BoxData, DetectionRecipe
from training.detection.retrieval import POLICIES, TRUE
from training.run_folder import save_recipe

GREY = (127, 127, 127)  # on which the tiny detector's scores are as given
TAXONOMY = ("jar", "tin")
# What the tiny detector says of every photo: of a jar, of a tin, and of nothing.
BOXES = np.array([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [0.0, 0.6, 0.3, 0.9]])
SCORES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.1]])


def coco(folder: Path, photos: list[list[tuple[str, list[int]]]]) -> None:
    """Grey squares of 100 px. `photos`: for each (category, x, y, width, height) of what is there."""
    folder.mkdir(parents=True)
    names = ["jar", "tin", "person"]
    images, annotations = [], []
    for number, things in enumerate(photos):
        Image.new("RGB", (100, 100), GREY).save(folder / f"{number}.png")
        images.append(
            {"id": number, "file_name": f"{number}.png", "width": 100, "height": 100, "split": "val"}
        )
        annotations += [
            {"image_id": number, "category_id": names.index(name), "bbox": box} for name, box in things
        ]
    for number, annotation in enumerate(annotations):
        annotation["id"] = number
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": row, "name": name} for row, name in enumerate(names)],
    }
    (folder / "annotations.json").write_text(json.dumps(content))


JAR, TIN, MOVED_TIN = [10, 10, 40, 40], [60, 60, 30, 30], [60, 45, 30, 30]  # IoU of the last two: 1/3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A jar and a tin; a jar where the detector says tin; a tin a little off, and a person round the rest."""
    root = tmp_path / "data"
    coco(
        root / "boxes",
        [
            [("jar", JAR), ("tin", TIN)],
            [("jar", TIN)],
            [("tin", MOVED_TIN), ("person", [0, 5, 55, 95])],
        ],
    )
    return root


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "model" / "detector.card.json"
    path.parent.mkdir()
    tiny_models.detector(path.parent, BOXES, SCORES, TAXONOMY).save(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], terminal_width=200)


def figures(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def test_classes_are_told_apart_and_every_error_is_counted(data: Path, card: Path) -> None:
    content = figures(card, "--data", data, "--test", "boxes:val", "--ignore", "person")
    assert content["taxonomy"] == list(TAXONOMY)
    assert content["class_agnostic"] is False
    (one,) = content["sets"].values()
    assert (one["photos"], one["boxes"]) == (3, 4)
    found = one["detectors"]["tiny-detector 1"]
    # Photo 1: both found, the third box false. 2: jar box false, tin box confused, the third false.
    # 3: tin box shifted, the other two lie in the ignored person.
    assert found["failures"] == {
        "from score": 0.3, "missed": 0, "confused": 1, "doubled": 0, "shifted": 1, "false": 3
    }  # fmt: skip
    # The jar of photo 2 is found as a jar, too, less surely than as a tin: a search would be told of a tin.
    jar, tin = found["by class"]["jar"], found["by class"]["tin"]
    assert jar["recall@100"] == pytest.approx(1.0)
    assert jar["AP50"] == pytest.approx((1 + 2 / 6) / 2, abs=0.01)
    assert jar["AP50 as served"] == pytest.approx(0.5, abs=0.01)
    assert tin["AP50"] == tin["AP50 as served"] == pytest.approx(0.5, abs=0.01)
    assert found["AP50 as served"] == pytest.approx(0.5, abs=0.01)
    assert set(found["by size"]) == {"small", "medium", "large"}
    assert found["by size"]["small"]["AP"] is None  # none is there: JSON knows no NaN
    assert found["ms"] > 0


def test_class_agnostic_counts_places_alone(data: Path, card: Path) -> None:
    content = figures(card, "--data", data, "--test", "boxes", "--ignore", "person", "--class-agnostic")
    (one,) = content["sets"].values()
    found = one["detectors"]["tiny-detector 1"]
    assert content["class_agnostic"] is True
    assert found["failures"]["confused"] == 0
    assert found["recall@100"] == pytest.approx(0.75)
    assert found["best F1"] == pytest.approx(2 * 3 / (5 + 4), abs=1e-3)  # 3 of 5 boxes, 4 things


def test_a_bundle_with_the_class_product_is_judged_by_places_on_drawn_scenes(tmp_path: Path) -> None:
    bundle = tiny_release.bundle(tmp_path / "bundle")
    content = figures(bundle, "--drawn", 3)
    assert content["detector"] == "tiny@1"
    assert set(content["sets"]) == {"drawn scenes"}
    assert content["sets"]["drawn scenes"]["photos"] == 3


def test_the_tables_name_sets_detectors_and_errors(data: Path, card: Path) -> None:
    result = run(card, "--data", data, "--test", "boxes:val", "--ignore", "person")
    assert result.exit_code == 0, result.output
    for word in ("boxes val", "tiny-detector 1", "AP75", "recall@100", "shifted", "jar", "large"):
        assert word in result.stdout


def test_the_pages_are_self_contained_and_show_the_errors(data: Path, card: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = run(card, "--data", data, "--test", "boxes:val", "--ignore", "person", "--out", out)
    assert result.exit_code == 0, result.output
    page, failures = (out / name for name in ("report.html", "failures-boxes-val.html"))
    assert failures.name in page.read_text()
    assert "3 of 3 shown, the worst first" in failures.read_text()  # false
    assert "tin 0.80, is jar" in failures.read_text()
    assert failures.read_text().count("data:image/jpeg;base64,") == 5
    for path in (page, failures):
        links = re.findall(r'(?:src|href)="([^"]+)"', path.read_text())
        assert all(link.startswith("data:") or (out / link).is_file() for link in links)
    written = json.loads((out / "report.json").read_text())
    assert written["detector"] == "tiny-detector 1"


def test_the_error_is_drawn_where_it_is_and_only_so_many_are(data: Path, card: Path) -> None:
    one = contender(card)
    photos = read_set(BoxData("boxes", ignored=("person",)), data, one.taxonomy)
    result = evaluate(one, photos)
    (kind,) = (kind for kind in failure_pictures(result, shown=2) if kind.kind == "false")
    assert (len(kind.pictures), kind.total) == (2, 3)
    failure = next(failure for failure in result.failures if failure.kind == "shifted")
    picture = drawn(failure, result)
    assert picture.size == (288, 288)
    x, y = round(failure.box[0] * 288) + 1, round(failure.box[1] * 288) + 20
    assert picture.getpixel((x, y)) == ERROR


def test_a_run_whose_classes_are_mapped_is_judged_by_its_own_mapping() -> None:
    known = BoxData(
        "boxes", classes={"pot": "jar"}, ignored=("hand",), splits=("train",), share=3, only=("pot",)
    )
    recipe = DetectionRecipe(data=(known,), taxonomy=TAXONOMY)
    entry = entry_of("boxes:val,test", ignored=("person",), recipe=recipe)
    assert (entry.classes, entry.ignored) == ({"pot": "jar"}, ("hand", "person"))
    assert (entry.splits, entry.only) == (("val", "test"), ())
    assert entry_of("others", not_products=True, recipe=recipe) == BoxData("others", not_products=True)


def test_a_folder_of_voc_files_is_read_as_such(data: Path, card: Path) -> None:
    folder = data / "voc"
    folder.mkdir()
    Image.new("RGB", (100, 100), GREY).save(folder / "0.png")
    box = "<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>50</xmax><ymax>50</ymax></bndbox>"
    (folder / "0.xml").write_text(
        "<annotation><filename>0.png</filename><size><width>100</width><height>100</height></size>"
        f"<object><name>jar</name>{box}</object></annotation>"
    )
    content = figures(card, "--data", data, "--test", "voc")
    assert content["sets"]["voc"]["detectors"]["tiny-detector 1"]["by class"]["jar"]["recall@100"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "DATA"], "--test PATH"),
        (["--test", "boxes"], "--data FOLDER"),
        (["--data", "DATA", "--test", "boxes", "--drawn", "2"], "--class-agnostic"),
    ],
)
def test_what_is_missing_is_said(
    data: Path, card: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAGPIE_DATA", raising=False)
    result = run(card, *(str(data) if argument == "DATA" else argument for argument in arguments))
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.parametrize(
    ("test", "words"), [("boxes:nowhere", "nowhere"), ("boxes", "person"), ("absent", "absent")]
)
def test_sets_that_cannot_be_used_say_why(data: Path, card: Path, test: str, words: str) -> None:
    result = run(card, "--data", data, "--test", test, *(["--ignore", "person"] if ":" in test else []))
    assert isinstance(result.exception, MagpieError)
    assert words in str(result.exception)


def test_a_folder_that_holds_no_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="needs a bundle's folder"):
        contender(tmp_path)
    save_recipe(tmp_path, DetectionRecipe())
    with pytest.raises(MagpieError, match="no checkpoint"):
        contender(tmp_path)


def groceries(root: Path) -> None:
    """Two products with a catalogue picture, 40 training photos and two others each, all of them noise."""
    folder = root / "grocery-store"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["file,split,kind,product,department,category"]
    for product in ("apple", "milk"):
        kinds = [("gallery", "iconic"), *[("train", "natural")] * 40, *[("val", "natural")] * 2]
        for number, (split, kind) in enumerate(kinds):
            name = f"{product}-{number}.png"
            Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(folder / name)
            rows.append(f"{name},{split},{kind},{product},{'Fruit' if product == 'apple' else 'Packages'},c")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")


def test_search_is_measured_by_policy_and_one_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.commands.box_search.DRAWN", 2)
    monkeypatch.setattr("training.detection.searched_pictures.DRAWN_PRODUCTS", 4)
    bundle = tiny_release.bundle(tmp_path / "bundle")
    groceries(tmp_path / "data")
    arguments = (bundle, "--data", tmp_path / "data", "--search", "groceries", "--search", "drawn")
    content = figures(*arguments)["search"]
    assert content["chosen"] in POLICIES
    assert set(content["shops"]) == {"grocery-store development", "grocery-store val", "drawn scenes"}
    assert set(content["shops"]["grocery-store val"]["recall@1"]["whole image"]["both"]) == {
        "all", "Fruit", "Packages"
    }  # fmt: skip
    assert TRUE in content["shops"]["drawn scenes"]["recall@1"]
    table = run(*arguments).stdout
    assert '"box_policy"' in table
    assert "both: Fruit" in table
    assert f"{content['chosen']} less" in table


def test_a_run_has_no_score_to_search_from(tmp_path: Path) -> None:
    detect = lambda image: (BOXES, SCORES, np.zeros(3, np.int64))  # noqa: E731
    one = Contender("a run", ("product",), detect, detect)
    with pytest.raises(InvalidArgument, match="magpie export"):
        search(one, tmp_path, ["drawn"], tmp_path)


def test_help_shows_examples() -> None:
    assert "--test cards:test" in run("--help").output
