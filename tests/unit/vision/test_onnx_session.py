from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from magpie.errors import FailedPrecondition
from magpie.vision.model_card import ModelCard, OutputSpec
from magpie.vision.onnx_session import OnnxSession
from tests.unit.vision import tiny_models


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    return tiny_models.embedder(tmp_path)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 3, 32, 32)).astype(np.float32)


def test_gives_every_output_by_name(card: ModelCard, tmp_path: Path) -> None:
    batch = images(5)
    outputs = OnnxSession(card, tmp_path, threads=1).run(batch)
    colour = batch.mean(axis=(2, 3)) + 2
    assert set(outputs) == {"identity", "category"}
    for space, dimension in card.spaces.items():
        np.testing.assert_allclose(
            outputs[space], colour @ tiny_models.matrix(dimension), rtol=1e-4, atol=1e-5
        )


def test_nothing_is_read_before_the_first_run(card: ModelCard, tmp_path: Path) -> None:
    session = OnnxSession(card, tmp_path / "nowhere", threads=1)
    with pytest.raises(FailedPrecondition, match="nowhere"):
        session.run(images(1))


def test_many_threads_get_their_own_answers(card: ModelCard, tmp_path: Path) -> None:
    session = OnnxSession(card, tmp_path, threads=1)
    batches = [images(n) for n in range(1, 17)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(session.run, batches))
    for batch, outputs in zip(batches, together, strict=True):
        np.testing.assert_array_equal(outputs["identity"], session.run(batch)["identity"])


def test_refuses_a_file_that_is_not_the_card_s(card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / card.file).write_bytes((tmp_path / card.file).read_bytes() + b" ")
    with pytest.raises(FailedPrecondition, match="its card says"):
        OnnxSession(card, tmp_path, threads=1).load()


def test_refuses_what_is_no_model(card: ModelCard, tmp_path: Path) -> None:
    path = tmp_path / card.file
    path.write_bytes(b"no model")
    digest = hashlib.sha256(b"no model").hexdigest()
    with pytest.raises(FailedPrecondition, match="does not load"):
        OnnxSession(replace(card, sha256=digest), tmp_path, threads=1).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": replace(tiny_models.INPUT, name="pixels")}, "takes .*its card says"),
        ({"input": replace(tiny_models.INPUT, size=64)}, "takes .*its card says"),
        ({"outputs": (OutputSpec("identity", 8),)}, "gives .*category"),
        ({"outputs": (OutputSpec("identity", 8), OutputSpec("similar", 4))}, "gives .*similar"),
        ({"outputs": (OutputSpec("identity", 8), OutputSpec("category", 5))}, "category is .*dimension 5"),
    ],
)
def test_refuses_a_model_that_is_not_as_its_card_says(
    card: ModelCard, tmp_path: Path, change: dict, message: str
) -> None:
    with pytest.raises(FailedPrecondition, match=message):
        OnnxSession(replace(card, **change), tmp_path, threads=1).load()


def test_refuses_a_model_of_a_fixed_batch(card: ModelCard, tmp_path: Path) -> None:
    node = helper.make_node("ReduceMean", ["image"], ["identity"], axes=[2, 3], keepdims=0)
    digest = tiny_models.write(tmp_path / "fixed.onnx", [node], {}, ["identity"], batch=1)
    fixed = replace(card, file="fixed.onnx", sha256=digest, outputs=(OutputSpec("identity", 3),))
    with pytest.raises(FailedPrecondition, match="does not run on its card's input"):
        OnnxSession(fixed, tmp_path, threads=1).load()
