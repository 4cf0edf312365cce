"""The committed detector, fed by serving's own preprocessing, still gives what it gave at its release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from magpie.vision.model_card import ModelCard
from training.release.goldens import (
    PIXELS,
    SCORE,
    SURE,
    detector_faults,
    detector_outputs,
    detector_squares,
    golden_of,
)

BUNDLE = Path(__file__).parents[2] / "bundles" / "default"


@pytest.fixture(scope="module")
def card():
    return ModelCard.load(BUNDLE / "detector.card.json")


@pytest.fixture(scope="module")
def golden(card):
    return golden_of(card, BUNDLE)


def test_serving_prepares_pictures_as_at_release(card, golden):
    squares = detector_squares(golden, card.input)
    assert squares.shape == golden["squares"].shape
    # Pillow may round otherwise on another machine
    assert np.abs(squares.astype(int) - golden["squares"]).max() <= PIXELS


def test_the_model_answers_as_at_release(card, golden):
    assert detector_faults(card, BUNDLE) == []
    assert (golden["scores"] >= SURE).sum() >= 3  # or its boxes would be compared nowhere


def test_a_swapped_channel_would_be_noticed(card, golden):
    """The tolerance above is tight enough to catch a wrong preprocessing."""
    swapped = detector_squares(golden, card.input)[..., ::-1]
    scores = detector_outputs(card, BUNDLE, swapped)[1]
    assert np.abs(scores - golden["scores"]).max() >= SCORE


def test_the_card_tells_what_the_model_gives(card, golden):
    assert card.kind == "detector"
    assert card.detection is not None
    assert card.detection.taxonomy == ("product",)
    assert golden["boxes"].shape[2] == 4
    assert golden["boxes"].min() >= 0.0
    assert golden["boxes"].max() <= 1.0
    assert golden["scores"].shape == (*golden["boxes"].shape[:2], 1)
    assert (BUNDLE / card.file).stat().st_size < 6_000_000
