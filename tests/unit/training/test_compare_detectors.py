"""`magpie compare-detectors`: untrained networks of both architectures, their cost, the table in a page."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from magpie.errors import InvalidArgument
from tests.unit.vision import tiny_models
from training.commands.compare_detectors import command
from training.detection.comparison import BEGIN, END, Row, page_part, write_between
from training.detection.contract import Network
from training.detection.cost import Cost, cost_of_onnx, gflops, milliseconds, sample, steps
from training.detection.export import export_graph
from training.detection.recipe import BoxData, DetectionRecipe, Model
from training.detection.training_time import TrainingTime, minutes
from training.models.detectors.dsod import DsodShape
from training.run_folder import save_recipe

SMALL = DsodShape(stem=8, growth=4, layers=(1, 1, 1, 1), predictor=16)


def untrained(folder: Path, taxonomy: tuple[str, ...] = ("jar", "tin")) -> Path:
    """A run's folder as training leaves it, after no step of use."""
    data = (BoxData("boxes", classes={"pot": "jar"}),)
    recipe = DetectionRecipe(data=data, taxonomy=taxonomy, model=Model("dsod", 64, dsod=SMALL))
    folder.mkdir()
    save_recipe(folder, recipe)
    network = recipe.model.build(len(taxonomy))
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"task": weights}, folder / "checkpoint.pt")
    records = [{"epoch": 0, "step": 1}, {"epoch": 0, "step": 2}, {"epoch": 1, "step": 0, "AP": 0.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    TrainingTime(folder, "cpu", resume=False).save()
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, and a photo of a pot and a tin."""
    root = tmp_path_factory.mktemp("root")
    torch.manual_seed(0)
    untrained(root / "one")
    untrained(root / "other")
    boxes = root / "data" / "boxes"
    boxes.mkdir(parents=True)
    Image.new("RGB", (64, 64), (90, 90, 90)).save(boxes / "0.png")
    things = [{"id": n, "image_id": 0, "category_id": n, "bbox": [8 * n, 8, 24, 24]} for n in range(2)]
    image = {"id": 0, "file_name": "0.png", "width": 64, "height": 64, "split": "test"}
    names = [{"id": n, "name": name} for n, name in enumerate(("pot", "tin"))]
    content = {"images": [image], "annotations": things, "categories": names}
    (boxes / "annotations.json").write_text(json.dumps(content))
    return root


def run(root: Path, *arguments: object) -> Result:
    words = [*arguments, "--data", root / "data", "--test", "boxes:test"]
    return CliRunner().invoke(command, [str(word) for word in words], terminal_width=200)


def test_runs_stand_beside_each_other_with_what_they_cost(root: Path) -> None:
    result = run(root, root / "one", root / "other", "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    content = json.loads(result.stdout)
    assert content["set"] == "boxes:test"
    assert [row["detector"] for row in content["detectors"]] == ["one", "other"]
    for row in content["detectors"]:
        network = Model("dsod", 64, dsod=SMALL).build(2)
        assert row["size"] == 64
        assert 0 <= row["figures"]["AP"] <= 1
        assert 0 <= row["places"] <= 1
        assert row["cost"]["parameters"] == sum(p.numel() for p in network.parameters())
        assert row["cost"]["bytes"] > 4 * 0.9 * row["cost"]["parameters"]  # float32
        assert set(row["cost"]["ms"]) == {"1", "2"}
        assert row["cost"]["steps"] == 2
        assert row["cost"]["minutes"] >= 0


def test_the_table_goes_between_the_markers_and_nothing_else_changes(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "detectors.md"
    page.write_text(f"# Ours\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    for _ in range(2):  # again and again
        assert run(root, root / "one", "--out", page).exit_code == 0
        text = page.read_text()
        assert text.startswith(f"# Ours\n\nBefore.\n\n{BEGIN}\n")
        assert text.endswith(f"{END}\n\nAfter.\n")
        assert "old" not in text
        assert "| one | 64 |" in text
        assert "boxes test: 1 photos, 2 boxes" in text


def test_a_page_without_markers_is_left_alone_and_a_missing_one_is_made(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# No room\n")
    with pytest.raises(InvalidArgument, match="lacks the lines"):
        write_between(page, "table")
    assert page.read_text() == "# No room\n"
    write_between(tmp_path / "docs" / "new.md", "table")
    assert f"{BEGIN}\n\ntable\n\n{END}" in (tmp_path / "docs" / "new.md").read_text()


def test_what_was_not_measured_is_left_empty() -> None:
    cost = Cost(parameters=2_500_000, gflops=None, bytes=10_000_000, ms={1: 20.0, 2: 12.0})
    line = page_part([Row("teacher", 300, None, 0.25, cost)], "a set").splitlines()[-1]
    assert line == "| teacher | 300 |  |  |  |  |  | 0.250 | 2.50 |  | 10.0 | 20.0 | 12.0 |  |  |"


def test_detectors_of_other_classes_are_not_compared(root: Path, tmp_path: Path) -> None:
    result = run(root, root / "one", untrained(tmp_path / "box", ("product",)))
    assert isinstance(result.exception, InvalidArgument)
    assert "cannot be compared" in str(result.exception)


class OneConvolution(Network):
    def __init__(self) -> None:
        super().__init__(8, 1)
        self.convolution = nn.Conv2d(3, 5, 3, padding=1, bias=False)

    def features(self, pictures):  # type: ignore[no-untyped-def]
        return [self.convolution(pictures)]

    def found(self, maps):  # type: ignore[no-untyped-def]
        return maps[0], maps[0]

    def losses_on(self, maps, targets):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    def stages(self) -> list[nn.Module]:
        return []


def test_the_arithmetic_of_one_convolution() -> None:
    tensor = np.zeros((1, 3, 8, 8), np.float32)
    assert gflops(OneConvolution(), tensor) == pytest.approx(2 * 8 * 8 * 5 * 3 * 3 * 3 / 1e9)


def test_a_slow_model_is_timed_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_models.detector(tmp_path, np.zeros((4, 4)), np.zeros((4, 2)))
    monkeypatch.setattr("training.detection.cost.PATIENCE", 0.0)
    tensor = np.zeros((1, 3, 32, 32), np.float32)
    assert milliseconds(tmp_path / "detector.onnx", 1, tensor, runs=10**9) > 0


def test_a_network_that_needs_proposals_is_counted_and_timed_with_them(tmp_path: Path) -> None:
    taxonomy = ("jar", "tin")
    recipe = DetectionRecipe(taxonomy=taxonomy, model=Model("fast_rcnn", 64))
    network = recipe.model.build(2, pretrained=False).eval()
    tensor = sample(recipe.model.input)
    assert gflops(network, tensor) > 0
    export_graph(network, tmp_path / "detector.onnx", recipe.model.input)
    assert milliseconds(tmp_path / "detector.onnx", 1, tensor, runs=1) > 0


def test_the_cost_of_a_file_alone(tmp_path: Path) -> None:
    tiny_models.detector(tmp_path, np.zeros((4, 4)), np.zeros((4, 2)))
    cost = cost_of_onnx(tmp_path / "detector.onnx", threads=(1,), runs=2)
    assert cost.parameters == 4 * 4 + 4 * 2 + 3  # and three constants
    assert cost.bytes == (tmp_path / "detector.onnx").stat().st_size
    assert cost.ms[1] > 0
    assert (cost.gflops, cost.steps, cost.minutes) == (None, None, None)


def test_steps_and_minutes_of_a_run_that_kept_neither(tmp_path: Path) -> None:
    assert (steps(tmp_path), minutes(tmp_path)) == (None, None)


def test_the_time_of_all_sittings_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for resume, passed, expected in ((False, 60, 1.0), (True, 120, 3.0), (False, 30, 0.5)):
        taken = TrainingTime(tmp_path, "cpu", resume=resume)
        now[0] += passed
        taken.save()
        assert minutes(tmp_path) == pytest.approx(expected)
