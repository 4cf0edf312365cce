from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from magpie.errors import InvalidArgument
from magpie.index.hash_model import CARD, HashModel
from magpie.vision.bundle import Bundle
from training.commands.hash import command, held_out
from training.datasets.example import Example
from training.hashing import bernoulli_autoencoder
from training.hashing.bernoulli_autoencoder import Settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(ROOT / "bundles" / "default", tmp_path / "bundle")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 pictures of blocks of colour, in two splits."""
    folder = tmp_path / "photos" / "shop"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["image,split"]
    for number in range(40):
        blocks = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((24, 24, 1), np.uint8))).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'train' if number < 30 else 'dev'}")
    (folder / "shop.csv").write_text("\n".join(lines) + "\n")
    return folder.parent


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = bernoulli_autoencoder.fit
    settings = Settings(steps=5, batch=32)
    monkeypatch.setattr(bernoulli_autoencoder, "fit", lambda v, bits, seed: fit(v, bits, seed, settings))


def run(*words: str) -> str:
    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_codes_of_the_bits_wanted_are_put_into_the_bundle(bundle: Path, photos: Path) -> None:
    where = ("--bundle", str(bundle), "--data", str(photos), "--grow-to", "0")
    sets = ("--dataset", "shop/shop.csv:train", "--queries", "shop/shop.csv:dev")
    report = json.loads(run(*where, *sets, "--bits", "category=64", "--json"))
    loaded = Bundle.load(bundle)
    assert loaded.hash == CARD
    model = HashModel.load(bundle, CARD, loaded.embedder_card.sha256)
    assert model.bits == {"identity": 256, "category": 64, "similar": 128}
    assert {space: chosen["bits"] for space, chosen in report["chosen"].items()} == model.bits
    held_out_rows = [row for row in report["table"] if row["collection"] == "held-out queries"]
    assert {(row["objects"], row["queries"]) for row in held_out_rows} == {(30, 10)}
    assert report["bytes"] < 500_000
    card = json.loads((bundle / CARD).read_text())
    assert card["training_data"] == ["shop, splits train"]
    # Again, with queries held out by itself, and a table for people.
    printed = run(*where, "--dataset", "shop/shop.csv")
    for space, coder in HashModel.load(bundle, CARD, loaded.embedder_card.sha256).coders.items():
        assert f"{space}: {coder.method}, {coder.card.bits} bits" in printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--bits", "identity"), "write SPACE=BITS"),
        (("--bits", "identity=100"), "multiple of 64"),
        (("--bits", "colour=64"), "no space colour"),
        (("--dataset", "shop/shop.csv:nowhere"), "nowhere"),
        (("--dataset", "clothes"), "there is no"),
    ],
)
def test_what_cannot_be_is_said_and_the_bundle_left_alone(
    bundle: Path, photos: Path, words: tuple[str, ...], says: str
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    fixed = ("--bundle", str(bundle), "--data", str(photos), "--dataset", "shop/shop.csv:train")
    result = CliRunner().invoke(command, [*fixed, *words])
    assert result.exit_code != 0
    assert says in (result.output + str(result.exception))
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_pictures_held_out_are_never_fitted_to() -> None:
    pictures = [Example(Path(f"{number}.jpg"), "shop") for number in range(40)]
    fitted, asked = held_out(pictures, seed=3)
    assert (len(fitted), len(asked)) == (34, 6)
    assert sorted([*fitted, *asked], key=pictures.index) == pictures
    assert held_out(pictures, seed=3) == (fitted, asked)
    assert held_out(pictures, seed=4) != (fitted, asked)
    with pytest.raises(InvalidArgument, match="2 pictures are too few"):
        held_out(pictures[:2], seed=3)
