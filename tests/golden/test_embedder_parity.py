"""The committed embedder, fed by serving's own preprocessing, gives the vectors it was released with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from magpie.geometry import Box
from magpie.vision.model_card import ModelCard
from magpie.vision.onnx_session import OnnxSession
from magpie.vision.preprocess import crops, to_tensor

BUNDLE = Path(__file__).parents[2] / "bundles" / "default"
CARD = ModelCard.load(BUNDLE / "embedder.card.json")


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(BUNDLE / "embedder.golden.npz") as arrays:
        return dict(arrays)


def golden_squares(golden: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    boxes = [Box(*map(float, row)) for row in golden["boxes"]]
    cut = [crops(golden[f"image_{i}"], [box], CARD.input) for i, box in enumerate(boxes)]
    return np.concatenate(cut)


def test_preprocessing_cuts_the_same_pixels(golden: dict[str, NDArray[Any]]) -> None:
    squares = golden_squares(golden)
    assert squares.shape == (len(golden["boxes"]), CARD.input.size, CARD.input.size, 3)
    # Pillow's fixed-point resize may round one way or the other between its releases.
    assert np.abs(squares.astype(int) - golden["squares"].astype(int)).max() <= 1


def test_tensor_is_the_formula_of_the_card(golden: dict[str, NDArray[Any]]) -> None:
    tensor = to_tensor(golden["squares"], CARD.input)
    expected = (golden["squares"].astype(np.float64) - 127.0) / 128.0
    np.testing.assert_allclose(tensor.transpose(0, 2, 3, 1), expected, atol=1e-6)


def cosines(golden: dict[str, NDArray[Any]], squares: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """By space, the cosine of every vector of today with every released one, (N, N)."""
    vectors = OnnxSession(CARD, BUNDLE, threads=1).run(to_tensor(squares, CARD.input))
    assert {space: found.shape[1] for space, found in vectors.items()} == CARD.spaces
    for found in vectors.values():
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    return {space: found @ golden[space].T for space, found in vectors.items()}


def test_model_gives_the_released_vectors(golden: dict[str, NDArray[Any]]) -> None:
    for matrix in cosines(golden, golden_squares(golden)).values():
        # int8 kernels round apart between kinds of processor; the vectors must still be the same ones.
        assert matrix.diagonal().min() > 0.98
        # And the pictures must not be taken for one another.
        assert np.array_equal(matrix.argmax(axis=1), np.arange(len(matrix)))


def test_swapped_channels_would_be_noticed(golden: dict[str, NDArray[Any]]) -> None:
    """The tolerance above is tight enough to catch a wrong preprocessing."""
    for matrix in cosines(golden, golden_squares(golden)[..., ::-1]).values():
        assert matrix.diagonal().min() < 0.97
