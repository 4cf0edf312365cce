"""Is a bundle whole, and is it what was released?"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magpie.errors import FailedPrecondition
from magpie.index.hash_model import CARD, Coder, HashModel
from magpie.ranking import bundled_configs
from magpie.ranking.calibration import Calibration, Curve, SpaceCalibration
from magpie.ranking.hubness import FILE as HUBNESS
from magpie.ranking.hubness import Hubness
from magpie.v1.ranking_config_pb2 import RankingConfig
from magpie.vision.bundle import Bundle
from magpie.vision.model_card import ModelCard
from tests.unit.training import tiny_release
from training.release.compare import Comparison
from training.release.record import ReleaseRecord, checksums, verify_release, write_whole
from training.release.wholeness import customers_of, whole_bundle


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_release.bundle(tmp_path_factory.mktemp("original") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def change_card(folder: Path, name: str, **changes: object) -> None:
    path = folder / f"{name}.card.json"
    card = ModelCard.load(path)
    replace(card, input=replace(card.input, **changes)).save(path)


def test_a_whole_bundle_passes(folder: Path) -> None:
    assert whole_bundle(folder).id == "tiny@1"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "bundle.json").unlink(), r"bundle\.json"),
        (lambda f: (f / "embedder.onnx").write_bytes(b"no model"), "embedder.onnx has SHA-256"),
        (lambda f: (f / "detector.onnx").unlink(), r"detector\.onnx"),
        (lambda f: (f / "embedder.golden.npz").unlink(), r"embedder\.golden\.npz.*export the model again"),
        (lambda f: (f / "detector.golden.npz").write_bytes(b"zip"), r"detector\.golden\.npz"),
        (lambda f: change_card(f, "embedder", mean=400.0), "a vector of space identity has cosine"),
        (lambda f: change_card(f, "embedder", fill=0), "serving's squares differ by 114 of 255"),
        (lambda f: change_card(f, "detector", scale=20.0), "detector.onnx: a score differs by"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, spoil, message: str) -> None:
    spoil(folder)
    with pytest.raises(FailedPrecondition, match=message):
        whole_bundle(folder)


def test_all_faults_are_told_at_once(folder: Path) -> None:
    change_card(folder, "embedder", mean=400.0)
    (folder / "detector.golden.npz").unlink()
    with pytest.raises(FailedPrecondition) as error:
        whole_bundle(folder)
    assert "detector.golden.npz" in str(error.value)
    assert "space identity" in str(error.value)


def put_ranking(folder: Path, customer: str, text: str) -> None:
    path = bundled_configs.path_of(folder, customer)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_customers_configs_must_fit_the_spaces(folder: Path) -> None:
    config = RankingConfig(min_score=0.4)
    for customer in ("acme", "bolt"):
        bundled_configs.write(folder, customer, config, ["identity"], calibrated=False)
    whole_bundle(folder)
    assert customers_of(folder) == ["acme", "bolt"]
    config.fusion.weights["colour"] = 1.0
    bundled_configs.write(folder, "bolt", config, ["identity", "colour"], calibrated=False)
    put_ranking(folder, "acme", "{")
    with pytest.raises(FailedPrecondition) as error:
        whole_bundle(folder)
    assert "acme/ranking.json: " in str(error.value)
    assert "bolt/ranking.json: fusion.weights['colour']: no such space" in str(error.value)
    put_ranking(folder, "acme", '{"minScore": 0.4}')
    with pytest.raises(FailedPrecondition, match=r"acme/ranking\.json has checksum none"):
        whole_bundle(folder)


def calibration(space: str, embedder: str) -> Calibration:
    curve = Curve(slope=8.0, intercept=-5.0, pairs=100, right=40)
    spaces = {name: SpaceCalibration(curve, {}, None, 0.2, 0.1) for name in {"identity", space}}
    return Calibration(embedder, spaces)


def test_a_calibration_must_be_of_this_embedder(folder: Path) -> None:
    manifest = json.loads((folder / "bundle.json").read_text()) | {"calibration": "calibration.json"}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    own = Bundle.load(folder).embedder_card.sha256
    for space, embedder, message in (
        ("identity", own, None),
        ("colour", own, "the embedder has no space colour"),
        ("identity", "f" * 64, "fitted to an embedder with SHA-256 f"),
    ):
        calibration(space, embedder).save(folder / "calibration.json")
        if message is None:
            whole_bundle(folder)
            continue
        with pytest.raises(FailedPrecondition, match=message):
            whole_bundle(folder)


def test_hubness_must_be_of_this_embedder(folder: Path) -> None:
    manifest = json.loads((folder / "bundle.json").read_text()) | {"hubness": HUBNESS}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    card = Bundle.load(folder).embedder_card
    for dimension, embedder, message in (
        (card.spaces["identity"], card.sha256, None),
        (5, card.sha256, "references of 5 dimensions, identity has"),
        (card.spaces["identity"], "f" * 64, "is of an embedder with SHA-256 f"),
    ):
        Hubness(embedder, np.eye(dimension, dtype=np.float32), 2, 0.5, 0.1).save(folder)
        if message is None:
            whole_bundle(folder)
            continue
        with pytest.raises(FailedPrecondition, match=message):
            whole_bundle(folder)


def test_a_hash_model_must_be_of_this_embedder(folder: Path) -> None:
    manifest = json.loads((folder / "bundle.json").read_text()) | {"hash": CARD}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(FailedPrecondition, match="hash"):
        whole_bundle(folder)
    rng = np.random.default_rng(0)
    own = Bundle.load(folder).embedder_card.sha256

    def coder(dimension: int) -> Coder:
        weights = rng.normal(size=(dimension, 64)).astype(np.float32)
        return Coder("itq", (weights,), (np.zeros(64, np.float32),))

    HashModel({"identity": coder(3)}).save(folder, own)
    whole_bundle(folder)
    HashModel({"identity": coder(5)}).save(folder, own)
    with pytest.raises(FailedPrecondition, match="5 dimensions of space identity, the embedder gives 3"):
        whole_bundle(folder)
    HashModel({"identity": coder(3)}).save(folder, "f" * 64)
    with pytest.raises(FailedPrecondition, match="fit the hash model again"):
        whole_bundle(folder)


def released(folder: Path) -> ReleaseRecord:
    record = ReleaseRecord(
        bundle=Bundle.load(folder).id,
        released_at="2024-05-06T07:08:09+00:00",
        against="tiny@0",
        suite={"file": "suite.toml", "sha256": "0" * 64},
        comparison=Comparison((), 0.05).as_dict(),
        margin=0.05,
        warnings=(),
        allowed_worse=None,
        skipped_sets=(),
        dropped_customers=(),
        earlier=("tiny@0",),
        files=checksums(folder),
    )
    record.save(folder)
    return record


def test_a_release_is_verified_file_by_file(folder: Path) -> None:
    with pytest.raises(FailedPrecondition, match="never released"):
        verify_release(folder)
    put_ranking(folder, "acme", "{}")
    record = released(folder)
    found = verify_release(folder)
    assert found.files == record.files
    assert set(found.files) == {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")} - {
        "release.json"
    }
    assert "customers/acme/ranking.json" in found.files


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "detector.onnx").unlink(), "detector.onnx is missing"),
        (
            lambda f: put_ranking(f, "acme", "{}"),
            r"acme/ranking\.json is not of the release",
        ),
        (lambda f: (f / "embedder.card.json").write_text("{}"), r"embedder\.card\.json was changed"),
        (lambda f: (f / "release.json").write_text("{}"), "release record"),
        (lambda f: (f / "more").symlink_to(f / "bundle.json"), "no plain file"),
    ],
)
def test_a_release_that_was_touched_is_refused(folder: Path, spoil, message: str) -> None:
    released(folder)
    spoil(folder)
    with pytest.raises(FailedPrecondition, match=message):
        verify_release(folder)


def test_a_record_of_another_bundle_is_refused(folder: Path) -> None:
    record = released(folder)
    replace(record, bundle="tiny@9").save(folder)
    with pytest.raises(FailedPrecondition, match="manifest says tiny@1, its release tiny@9"):
        verify_release(folder)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
