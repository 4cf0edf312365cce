from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.index.hash_card import CoderCard, HashCard
from magpie.index.hash_model import CARD, FILE, Coder, HashModel

EMBEDDER = "e" * 64


def random_coder(dimension: int, bits: int, hidden: int = 0, seed: int = 0) -> Coder:
    rng = np.random.default_rng(seed)
    widths = [dimension, hidden, bits] if hidden else [dimension, bits]
    weights = [rng.normal(size=pair).astype(np.float32) for pair in itertools.pairwise(widths)]
    biases = [rng.normal(size=width).astype(np.float32) for width in widths[1:]]
    return Coder("random", tuple(weights), tuple(biases))


@pytest.fixture
def model() -> HashModel:
    return HashModel({"identity": random_coder(16, 256), "category": random_coder(8, 64, hidden=24, seed=1)})


def test_a_code_is_the_signs_of_the_outputs_one_by_one(model: HashModel) -> None:
    rng = np.random.default_rng(2)
    for space, coder in model.coders.items():
        vectors = rng.normal(size=(40, coder.card.dimension)).astype(np.float32)
        codes = model.encode(space, vectors)
        assert codes.shape == (40, coder.card.bits // 8)
        for vector, code in zip(vectors.astype(np.float64), codes, strict=True):
            values = vector
            for layer, (weight, bias) in enumerate(zip(coder.weights, coder.biases, strict=True)):
                values = (np.tanh(values) if layer else values) @ weight + bias
            for bit, value in enumerate(values):
                if abs(value) > 1e-4:
                    assert (code[bit // 8] >> (7 - bit % 8)) & 1 == int(value > 0)


def test_many_rows_are_encoded_as_few(model: HashModel) -> None:
    vectors = np.random.default_rng(3).normal(size=(40_000, 8)).astype(np.float32)
    codes = model.encode("category", vectors)
    differing = np.bitwise_count(codes[39_000:] ^ model.encode("category", vectors[39_000:]))
    assert differing.sum() <= 5  # outputs within rounding of 0
    assert model.encode("category", vectors[:0]).shape == (0, 8)


def test_what_does_not_fit_is_named(model: HashModel) -> None:
    with pytest.raises(InvalidArgument, match=r"space: the hash model has identity, category, not 'similar'"):
        model.encode("similar", np.zeros((1, 8), np.float32))
    with pytest.raises(InvalidArgument, match=r"vectors: must be \(N, 16\) in space identity, are \(1, 8\)"):
        model.encode("identity", np.zeros((1, 8), np.float32))


def test_what_is_saved_is_loaded(model: HashModel, tmp_path: Path) -> None:
    rows = [{"space": "identity", "bits": 256, "rescored": 0.99}]
    card = model.save(tmp_path, EMBEDDER, ["some photos"], rows)
    assert card.sha256 == hashlib.sha256((tmp_path / FILE).read_bytes()).hexdigest()
    assert HashCard.load(tmp_path / CARD) == card
    assert card.spaces["category"] == CoderCard("random", 64, 8, 24)
    assert list(card.measured) == rows
    loaded = HashModel.load(tmp_path, CARD, EMBEDDER)
    assert loaded.bits == {"identity": 256, "category": 64} == model.bits
    for space, coder in model.coders.items():
        vectors = np.random.default_rng(4).normal(size=(99, coder.card.dimension)).astype(np.float32)
        assert np.array_equal(loaded.encode(space, vectors), model.encode(space, vectors))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CARD, FILE]


def test_equal_models_give_equal_bytes(model: HashModel, tmp_path: Path) -> None:
    first = model.save(tmp_path, EMBEDDER)
    assert model.save(tmp_path, EMBEDDER).sha256 == first.sha256


def test_a_file_that_was_changed_is_refused(model: HashModel, tmp_path: Path) -> None:
    model.save(tmp_path, EMBEDDER)
    content = bytearray((tmp_path / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"hash\.npz has SHA-256 .*, its card says"):
        HashModel.load(tmp_path, CARD, EMBEDDER)


def test_the_codes_of_another_embedder_are_refused(model: HashModel, tmp_path: Path) -> None:
    model.save(tmp_path, EMBEDDER)
    with pytest.raises(FailedPrecondition, match="fit the hash model again"):
        HashModel.load(tmp_path, CARD, "f" * 64)


def test_missing_files_are_named(model: HashModel, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"hash\.card\.json"):
        HashModel.load(tmp_path, CARD, EMBEDDER)
    model.save(tmp_path, EMBEDDER)
    (tmp_path / FILE).unlink()
    with pytest.raises(FailedPrecondition, match=r"hash\.npz"):
        HashModel.load(tmp_path, CARD, EMBEDDER)


def _change_bits(card: dict) -> None:
    card["spaces"]["identity"]["bits"] = 128


def _add_space(card: dict) -> None:
    card["spaces"]["similar"] = {"method": "itq", "bits": 64, "dimension": 8}


def _odd_bits(card: dict) -> None:
    card["spaces"]["identity"]["bits"] = 100


def _newer(card: dict) -> None:
    card["format"] = 2


def _unknown_field(card: dict) -> None:
    card["colour"] = "red"


def _no_spaces(card: dict) -> None:
    card["spaces"] = {}


def _list_of_spaces(card: dict) -> None:
    card["spaces"] = ["identity"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_change_bits, "the card says"),
        (_add_space, "similar.weight.0"),
        (_odd_bits, "multiple of 64"),
        (_newer, "format 2, this release reads format 1"),
        (_unknown_field, "colour"),
        (_no_spaces, "needs a coder"),
        (_list_of_spaces, "hash card"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(model: HashModel, tmp_path: Path, change, says: str) -> None:
    model.save(tmp_path, EMBEDDER)
    card = json.loads((tmp_path / CARD).read_text())
    change(card)
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(FailedPrecondition, match=says):
        HashModel.load(tmp_path, CARD, EMBEDDER)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_archive_is_refused(model: HashModel, tmp_path: Path, content: bytes) -> None:
    card = model.save(tmp_path, EMBEDDER)
    (tmp_path / FILE).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    HashCard(card.format, card.file, digest, EMBEDDER, card.spaces).save(tmp_path / CARD)
    with pytest.raises(FailedPrecondition, match=r"hash\.npz"):
        HashModel.load(tmp_path, CARD, EMBEDDER)


def test_layers_that_do_not_fit_together_are_refused() -> None:
    good = random_coder(8, 64, hidden=4)
    with pytest.raises(ValueError, match="do not fit"):
        Coder("x", (good.weights[0], good.weights[0]), good.biases)
    with pytest.raises(ValueError, match="not finite"):
        Coder("x", (np.full((8, 64), np.nan, np.float32),), (np.zeros(64, np.float32),))
    with pytest.raises(ValueError, match="one or two"):
        Coder("x", (), ())
