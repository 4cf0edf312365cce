from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magpie.errors import FailedPrecondition
from magpie.vision.bundle import Bundle
from magpie.vision.detector import Detector
from magpie.vision.embedder import Embedder
from tests.unit.vision import tiny_models

MANIFEST = {
    "name": "tiny",
    "version": "3",
    "detector": "detector.card.json",
    "embedder": "embedder.card.json",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_models.detector(tmp_path, np.array([[0, 0, 1, 1]]), np.array([[0.5]])).save(
        tmp_path / "detector.card.json"
    )
    tiny_models.embedder(tmp_path).save(tmp_path / "embedder.card.json")
    (tmp_path / "bundle.json").write_text(json.dumps(MANIFEST))
    return tmp_path


def test_a_bundle_runs_as_its_cards_say(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert bundle.id == "tiny@3"
    photo = np.full((32, 32, 3), 127, np.uint8)
    assert len(Detector(bundle.detector_card, bundle.folder, 1).detect(photo)) == 1
    assert Embedder(bundle.embedder_card, bundle.folder, 1).embed(photo[None])["identity"].shape == (1, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": ""}, "version must match"),
        ({"version": 3}, "version must match"),
        ({"name": "a b"}, "name must match"),
        ({"name": "a@b"}, "name must match"),
        ({"detector": "../detector.card.json"}, "detector must match"),
        ({"detector": "missing.json"}, r"missing\.json"),
        (
            {"extra": "1"},
            "an object of name, version, detector, embedder and, as you like, hash, calibration",
        ),
        ({"hash": "../hash.card.json"}, "hash must match"),
        ({"detector": "embedder.card.json"}, "is no detector's"),
        ({"embedder": "detector.card.json"}, "must be an embedder's card"),
    ],
)
def test_refuses_a_manifest_that_does_not_fit(folder: Path, change: dict, message: str) -> None:
    (folder / "bundle.json").write_text(json.dumps({**MANIFEST, **change}))
    with pytest.raises(FailedPrecondition, match=message):
        Bundle.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '"bundle"'])
def test_refuses_what_is_no_manifest(folder: Path, text: str) -> None:
    (folder / "bundle.json").write_text(text)
    with pytest.raises(FailedPrecondition, match=r"bundle\.json"):
        Bundle.load(folder)


def test_refuses_an_embedder_of_another_metric(folder: Path) -> None:
    card = replace(Bundle.load(folder).embedder_card, metric=None)
    card.save(folder / "embedder.card.json")
    with pytest.raises(FailedPrecondition, match="metric cosine"):
        Bundle.load(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="nowhere"):
        Bundle.load(tmp_path / "nowhere")
