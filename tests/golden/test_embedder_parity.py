"""The committed embedder, fed by serving's own preprocessing, gives the vectors it was released with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from magpie.vision.model_card import ModelCard
from magpie.vision.onnx_session import OnnxSession
from magpie.vision.preprocess import to_tensor
from training.release.goldens import PIXELS, Golden, cosines, embedder_faults, embedder_squares, golden_of

BUNDLE = Path(__file__).parents[2] / "bundles" / "default"
CARD = ModelCard.load(BUNDLE / "embedder.card.json")


@pytest.fixture(scope="module")
def golden() -> Golden:
    return golden_of(CARD, BUNDLE)


def test_preprocessing_cuts_the_same_pixels(golden: Golden) -> None:
    squares = embedder_squares(golden, CARD.input)
    assert squares.shape == (len(golden["boxes"]), CARD.input.size, CARD.input.size, 3)
    # Pillow's fixed-point resize may round one way or the other between its releases.
    assert np.abs(squares.astype(int) - golden["squares"].astype(int)).max() <= PIXELS


def test_tensor_is_the_formula_of_the_card(golden: Golden) -> None:
    tensor = to_tensor(golden["squares"], CARD.input)
    expected = (golden["squares"].astype(np.float64) - 127.0) / 128.0
    np.testing.assert_allclose(tensor.transpose(0, 2, 3, 1), expected, atol=1e-6)


def test_model_gives_the_released_vectors(golden: Golden) -> None:
    assert len(golden["squares"]) >= 3
    assert embedder_faults(CARD, BUNDLE) == []


def test_the_graph_ends_in_unit_vectors_of_the_cards_spaces(golden: Golden) -> None:
    vectors = OnnxSession(CARD, BUNDLE, threads=1).run(to_tensor(golden["squares"], CARD.input))
    assert {space: found.shape[1] for space, found in vectors.items()} == CARD.spaces
    for found in vectors.values():
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_swapped_channels_would_be_noticed(golden: Golden) -> None:
    """The tolerance above is tight enough to catch a wrong preprocessing."""
    squares = embedder_squares(golden, CARD.input)[..., ::-1]
    for matrix in cosines(CARD, BUNDLE, golden, squares).values():
        assert matrix.diagonal().min() < 0.97
