"""The committed detector, fed by serving's own preprocessing, still gives what it gave at its release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magpie.vision.model_card import ModelCard
from magpie.vision.onnx_session import OnnxSession
from magpie.vision.preprocess import Letterbox, to_tensor

BUNDLE = Path(__file__).parents[2] / "bundles" / "default"


@pytest.fixture(scope="module")
def card():
    return ModelCard.load(BUNDLE / "detector.card.json")


@pytest.fixture(scope="module")
def golden():
    with np.load(BUNDLE / "detector.golden.npz") as arrays:
        return dict(arrays)


def images_of(golden):
    return [golden[f"image_{i}"] for i in range(len(golden["squares"]))]


def test_serving_prepares_pictures_as_at_release(card, golden):
    letterbox = Letterbox(card.input.size, card.input.fill)
    for image, expected in zip(images_of(golden), golden["squares"], strict=True):
        square = letterbox(Image.fromarray(image)).astype(int)
        assert np.abs(square - expected).max() <= 1  # Pillow may round otherwise on another machine


def test_the_model_answers_as_at_release(card, golden):
    session = OnnxSession(card, BUNDLE, threads=1)
    letterbox = Letterbox(card.input.size, card.input.fill)
    fired = 0
    for row, image in enumerate(images_of(golden)):
        outputs = session.run(to_tensor(letterbox(Image.fromarray(image))[None], card.input))
        boxes, scores = outputs["boxes"][0], outputs["scores"][0, :, 0]
        # int8 kernels of another CPU may round otherwise; a wrong mean, scale or channel order moves more.
        assert np.abs(scores - golden["scores"][row, :, 0]).max() < 0.1
        sure = golden["scores"][row, :, 0] >= 0.3
        assert np.abs(boxes[sure] - golden["boxes"][row][sure]).max() < 0.05
        fired += int(sure.sum())
    assert fired >= 3


def test_a_swapped_channel_would_be_noticed(card, golden):
    """The tolerance above is tight enough to catch a wrong preprocessing."""
    session = OnnxSession(card, BUNDLE, threads=1)
    differences = []
    for row, image in enumerate(images_of(golden)):
        square = Letterbox(card.input.size, card.input.fill)(Image.fromarray(image[..., ::-1]))
        scores = session.run(to_tensor(square[None], card.input))["scores"][0, :, 0]
        differences.append(np.abs(scores - golden["scores"][row, :, 0]).max())
    assert max(differences) >= 0.1


def test_the_card_tells_what_the_model_gives(card, golden):
    assert card.kind == "detector"
    assert card.detection is not None
    assert card.detection.taxonomy == ("product",)
    assert golden["boxes"].shape[2] == 4
    assert golden["boxes"].min() >= 0.0
    assert golden["boxes"].max() <= 1.0
    assert golden["scores"].shape == (*golden["boxes"].shape[:2], 1)
    assert (BUNDLE / card.file).stat().st_size < 6_000_000
