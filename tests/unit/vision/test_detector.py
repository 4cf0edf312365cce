from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magpie.errors import FailedPrecondition
from magpie.vision.detector import Detector
from magpie.vision.model_card import ModelCard
from tests.unit.vision import tiny_models

# On a photo of 2:1 the square's rows 0.25 to 0.75 hold the photo.
PHOTO = np.full((100, 200, 3), 127, np.uint8)
BOXES = np.array(
    [
        [0.10, 0.30, 0.30, 0.50],  # a product
        [0.11, 0.30, 0.30, 0.50],  # the same, less sure
        [0.50, 0.20, 1.05, 0.80],  # reaches beyond the photo
        [0.40, 0.00, 0.60, 0.20],  # in the border only
        [0.70, 0.60, 0.75, 0.70],  # below the threshold
        [0.00, 0.30, 0.20, 0.60],
    ]
)
SCORES = np.array([[0.2, 0.9], [0.1, 0.8], [0.7, 0.1], [0.95, 0.0], [0.29, 0.1], [0.5, 0.55]])


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    return tiny_models.detector(tmp_path, BOXES, SCORES, ("bottle", "box"))


@pytest.fixture
def detector(card: ModelCard, tmp_path: Path) -> Detector:
    return Detector(card, tmp_path, threads=1)


def test_objects_best_first_in_fractions_of_the_photo(detector: Detector) -> None:
    found = detector.detect(PHOTO)
    assert [detection.label for detection in found] == ["box", "bottle", "box"]
    np.testing.assert_allclose(found[0].box, [0.10, 0.10, 0.30, 0.50], atol=1e-6)
    np.testing.assert_allclose(found[1].box, [0.50, 0.0, 1.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(found[2].box, [0.0, 0.10, 0.20, 0.70], atol=1e-6)
    scores = np.array([detection.score for detection in found])
    # The border is darker than the photo, so all scores are a little lower than given.
    np.testing.assert_allclose(scores / scores[0], np.array([0.9, 0.7, 0.55]) / 0.9, rtol=1e-5)


@pytest.mark.parametrize(("max_objects", "count"), [(0, 3), (1, 1), (2, 2), (30, 3)])
def test_limit(detector: Detector, max_objects: int, count: int) -> None:
    assert len(detector.detect(PHOTO, max_objects)) == count


def test_the_request_s_limit_may_exceed_the_card_s(card: ModelCard, tmp_path: Path) -> None:
    assert card.detection
    narrow = replace(card, detection=replace(card.detection, max_objects=1))
    detector = Detector(narrow, tmp_path, threads=1)
    assert len(detector.detect(PHOTO)) == 1
    assert len(detector.detect(PHOTO, 2)) == 2


def test_nothing_sure_enough_is_an_empty_list(detector: Detector) -> None:
    assert detector.detect(np.zeros((32, 32, 3), np.uint8)) == []  # black: the tiny model's scores fall to 0


def test_scores_that_are_no_numbers_are_no_objects(tmp_path: Path) -> None:
    card = tiny_models.detector(tmp_path, BOXES[:1], np.array([[np.nan]]))
    assert Detector(card, tmp_path, threads=1).detect(PHOTO) == []


def test_refuses_a_card_whose_taxonomy_does_not_fit(card: ModelCard, tmp_path: Path) -> None:
    assert card.detection
    wrong = replace(card, detection=replace(card.detection, taxonomy=("one",)))
    with pytest.raises(FailedPrecondition, match="its taxonomy needs"):
        Detector(wrong, tmp_path, threads=1)


def test_refuses_an_embedder_s_card(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="is no detector's"):
        Detector(tiny_models.embedder(tmp_path), tmp_path, threads=1)
