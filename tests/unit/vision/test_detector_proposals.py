from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magpie.errors import FailedPrecondition
from magpie.vision.detector import Detector
from magpie.vision.model_card import ModelCard
from tests.unit.vision import tiny_models


def test_a_detector_that_needs_proposals_is_refused(tmp_path: Path) -> None:
    card = tiny_models.detector(tmp_path, np.zeros((1, 4)), np.zeros((1, 1)))
    assert card.detection
    replace(card, detection=replace(card.detection, proposals=True)).save(tmp_path / "card.json")
    with pytest.raises(FailedPrecondition, match="no source of them"):
        Detector(ModelCard.load(tmp_path / "card.json"), tmp_path, threads=1)
