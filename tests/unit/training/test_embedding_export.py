"""A trained run becomes a bundle that serving runs, and the report says what int8 costs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from magpie.errors import FailedPrecondition
from magpie.vision.bundle import Bundle
from magpie.vision.bundle_models import BundleModels
from magpie.vision.embedder import Embedder
from magpie.vision.preprocess import crops
from tests.unit.training import tiny_shop
from training.commands.export import command
from training.datasets.example import Example
from training.embedding.assemble import _against_hubness, assemble
from training.embedding.recipe import read_recipe
from training.embedding.runs import torch_run, trained_embedder
from training.embedding.train import Pictures, train
from training.golden import BOXES, pictures
from training.release.wholeness import whole_bundle

DEFAULT = Path(__file__).parents[3] / "bundles" / "default"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(run folder, folder of the data)."""
    folder = tmp_path_factory.mktemp("run")
    data = tiny_shop.make(folder / "data")
    recipe = read_recipe(
        data / "recipe.toml", {"schedule.epochs": "1", "model.size": "64", "batch.sizes": "[64]"}
    )
    torch.set_num_threads(1)
    train(data, folder / "run", recipe, resume=False, tracking=None)
    return folder / "run", data


@pytest.fixture(scope="module")
def bundle(run: tuple[Path, Path]) -> Path:
    run_dir, data = run
    out = run_dir.parent / "bundle"
    arguments = [str(run_dir), "--data", str(data), "--out", str(out), "--name", "tiny", "--json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["left out"].keys() == {"hash", "hubness", "calibration"}
    assert report["embedder"]["megabytes"]["int8"] < 0.4 * report["embedder"]["megabytes"]["fp32"]
    return out


def test_hubness_goes_into_a_bundle(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with-hubness"
    shutil.copytree(bundle, folder)
    card = Bundle.load(folder).embedder_card
    shelf = [Example(Path(f"c{p}.jpg"), "shop", f"P{p}", catalogue=True) for p in range(3)]
    photos = [Example(Path(f"{p}-{n}.jpg"), "shop", f"P{p}") for p in range(3) for n in range(5)]
    axes = np.eye(128, dtype=np.float32)
    learnt = {"identity": axes[[0, 1, 2, *(p for p in range(3) for _ in range(5))]]}
    pictures = Pictures([*shelf, *photos], [Example(Path("dev.jpg"), "shop", "P1")], [], ())
    report = _against_hubness(folder, card, pictures, learnt, {"identity": axes[[1]]}, cost=0.0)
    assert report["references"] == 15
    loaded = BundleModels(whole_bundle(folder), threads=1).hubness
    assert loaded is not None
    assert loaded.strength == report["strength"] == 0.75
    assert loaded.penalty(axes[[0, 9]]) == pytest.approx([0.75 * (5 / 8 - 5 / 8), 0.75 * (0 - 5 / 8)])


def test_serving_runs_it_and_gives_what_training_gave(bundle: Path, run: tuple[Path, Path]) -> None:
    loaded = Bundle.load(bundle)
    assert loaded.id == f"tiny@{int(Bundle.load(DEFAULT).version) + 1}"
    spec = loaded.embedder_card.input
    squares = np.concatenate([crops(p, [box], spec) for p, box in zip(pictures(), BOXES, strict=True)])
    served = Embedder(loaded.embedder_card, bundle, threads=1).embed(squares)
    tensor = (squares.transpose(0, 3, 1, 2).astype(np.float32) - spec.mean) / spec.scale
    trained = torch_run(trained_embedder(run[0]))(tensor)
    with np.load(bundle / "embedder.golden.npz") as golden:
        for space, vectors in served.items():
            # int8 against float, and a batch against one at a time
            assert (vectors * trained[space]).sum(axis=1).min() > 0.9
            assert (vectors * golden[space]).sum(axis=1).min() > 0.99


def test_the_card_says_what_it_was_trained_on(bundle: Path) -> None:
    card = Bundle.load(bundle).embedder_card
    assert card.training_data[0].startswith("ImageNet weights")
    assert card.training_data[1:] == ("shop: 12 pictures", "wardrobe: 6 pictures")


def test_heads_are_stored_as_float16_and_run_as_float32(bundle: Path) -> None:
    graph = onnx.load(str(bundle / "embedder.onnx")).graph
    halves = [i for i in graph.initializer if i.data_type == onnx.TensorProto.FLOAT16]
    assert sorted(list(half.dims) for half in halves) == [[64, 1280], [64, 1280], [128, 1280]]


def test_no_bundle_is_overwritten_nor_named_like_its_base(run: tuple[Path, Path], bundle: Path) -> None:
    run_dir, data = run
    with pytest.raises(FailedPrecondition, match="exists already"):
        assemble(run_dir, data, DEFAULT, bundle, name="tiny", version="9", tell=print)
    old = Bundle.load(DEFAULT)
    with pytest.raises(FailedPrecondition, match="choose another --version"):
        assemble(
            run_dir, data, DEFAULT, bundle.with_name("new"), name=old.name, version=old.version, tell=print
        )
    assert not bundle.with_name("new").exists()
