from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from magpie.errors import FailedPrecondition, NotFound
from magpie.vision.bundle import Bundle
from magpie.vision.detector import Detector
from magpie.vision.model_card import ModelCard
from tests.unit.training.test_detectors_training import RECIPE
from tests.unit.training.tiny_boxes import write_coco
from tests.unit.training.tiny_release import bundle
from training.commands.export import command
from training.detection.assemble import assemble
from training.detection.export import export_detector
from training.detection.runs import is_of_detector
from training.detection.train import train
from training.release.goldens import detector_faults


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of the data, and a run."""
    folder = tmp_path_factory.mktemp("export")
    write_coco(folder / "data" / "tiny")
    train(
        folder / "data",
        folder / "run",
        replace(RECIPE, schedule=replace(RECIPE.schedule, epochs=1)),
        resume=False,
        tracking=None,
        pools=folder / "pools",
    )
    return folder / "data", folder / "run"


def test_a_run_becomes_a_model_that_serving_runs_as_it_was_exported(trained, tmp_path):
    data, run = trained
    report = export_detector(run, data, tmp_path / "out", "7", pools=tmp_path / "pools")
    assert set(report["lost"]) == {"AP", "AP50", "AP75", "recall@100"}
    assert report["megabytes"]["int8"] < report["megabytes"]["fp32"] / 2
    assert json.loads((run / "parity.json").read_text()) == report
    card = ModelCard.load(tmp_path / "out" / "detector.card.json")
    assert card.detection is not None
    assert card.detection.taxonomy == RECIPE.taxonomy
    assert (card.name, card.version, card.input.size) == ("magpie-modern-detector", "7", 64)
    assert any("ImageNet" in credit for credit in card.training_data)
    assert "tiny" in card.training_data
    assert detector_faults(card, tmp_path / "out") == []
    Detector(card, tmp_path / "out", threads=1).load()


def test_the_bundle_of_a_detector_keeps_all_else_of_its_base(trained, tmp_path):
    data, run = trained
    base = bundle(tmp_path / "base")
    (base / "release.json").write_text("{}")
    assemble(run, data, base, tmp_path / "new", name="tiny", version="2")
    new, old = Bundle.load(tmp_path / "new"), Bundle.load(base)
    assert new.id == "tiny@2"
    assert new.detector_card.sha256 != old.detector_card.sha256
    assert new.embedder_card == old.embedder_card
    assert not (tmp_path / "new" / "release.json").exists()
    with pytest.raises(FailedPrecondition, match="exists already"):
        assemble(run, data, base, tmp_path / "new", name="tiny", version="3")
    with pytest.raises(FailedPrecondition, match="choose another --version"):
        assemble(run, data, base, tmp_path / "other", name="tiny", version="1")


def test_the_command_knows_what_a_run_is_of(trained, tmp_path):
    data, run = trained
    base = bundle(tmp_path / "base")
    out = tmp_path / "new"
    answer = CliRunner().invoke(
        command, [str(run), "--data", str(data), "--base", str(base), "--out", str(out), "--json"]
    )
    assert answer.exit_code == 0, answer.output
    assert "int8" in json.loads(answer.stdout)["detector"]
    assert Bundle.load(out).version == "2"
    assert is_of_detector(run)
    with pytest.raises(NotFound, match="train first"):
        is_of_detector(tmp_path)
    shutil.rmtree(out)
    shown = CliRunner().invoke(
        command, [str(run), "--data", str(data), "--base", str(base), "--out", str(out)]
    )
    assert "ms a photo, one thread" in shown.output
