from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from magpie.errors import FailedPrecondition
from magpie.vision.embedder import Embedder, unit
from tests.unit.vision import tiny_models


def test_every_space_of_every_square_in_unit_norm(tmp_path: Path) -> None:
    embedder = Embedder(tiny_models.embedder(tmp_path), tmp_path, threads=1)
    squares = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    vectors = embedder.embed(squares)
    assert dict(embedder.spaces) == {"identity": 8, "category": 4}
    colour = (squares.mean(axis=(1, 2)) - 127) / 128 + 2
    for space, dimension in embedder.spaces.items():
        expected = colour @ tiny_models.matrix(dimension)
        expected /= np.sqrt((expected**2).sum(axis=1, keepdims=True))
        assert vectors[space].dtype == np.float32
        np.testing.assert_allclose(vectors[space], expected, atol=1e-5)


def test_a_square_s_vector_does_not_depend_on_its_company(tmp_path: Path) -> None:
    embedder = Embedder(tiny_models.embedder(tmp_path), tmp_path, threads=1)
    squares = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    together = embedder.embed(squares)["identity"]
    for row in range(4):
        np.testing.assert_allclose(
            embedder.embed(squares[row : row + 1])["identity"][0], together[row], atol=1e-6
        )


def test_unit_leaves_zeros_alone() -> None:
    np.testing.assert_array_equal(
        unit(np.array([[3, 4], [0, 0]], np.float32)), np.array([[0.6, 0.8], [0, 0]], np.float32)
    )


def test_refuses_a_detector_s_card(tmp_path: Path) -> None:
    card = tiny_models.detector(tmp_path, np.array([[0, 0, 1, 1]]), np.array([[0.5]]))
    with pytest.raises(FailedPrecondition, match="is no embedder's"):
        Embedder(card, tmp_path, threads=1)
