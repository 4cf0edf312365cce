from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.detection.anchors import PRODUCT_ANCHORS, AnchorLevel, anchors
from training.detection.box_coding import corners, decode, encode
from training.detection.matching import COVERED, NEGATIVE_IOU, POSITIVE_IOU, iou_and_cover, match
from training.models.detector import Detector


@st.composite
def boxes(draw, smallest=0, largest=6):
    corner = st.floats(0, 0.75, width=32)
    side = st.floats(0.0625, 0.5, width=32)
    rows = draw(st.lists(st.tuples(corner, corner, side, side), min_size=smallest, max_size=largest))
    return torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows], dtype=torch.float32).reshape(-1, 4)


def test_anchors_are_in_order_of_level_row_column_shape():
    levels = (AnchorLevel(2, ((0.2, 1.0), (0.4, 4.0))), AnchorLevel(1, ((0.9, 0.25),)))
    expected = []
    for level in levels:
        for row in range(level.cells):
            for column in range(level.cells):
                for side, ratio in level.shapes:
                    x, y = (column + 0.5) / level.cells, (row + 0.5) / level.cells
                    expected.append((x, y, side * math.sqrt(ratio), side / math.sqrt(ratio)))
    assert anchors(levels) == pytest.approx(np.array(expected, np.float32))


def test_the_detector_answers_once_for_every_anchor():
    detector = Detector(pretrained=False).eval()
    with torch.no_grad():
        logits, offsets = detector(torch.zeros(2, 3, 320, 320))
    count = sum(level.cells**2 * len(level.shapes) for level in PRODUCT_ANCHORS)
    assert detector.anchors.shape == (count, 4)
    assert logits.shape == (2, count)
    assert offsets.shape == (2, count, 4)
    assert count <= 2500


def test_an_answer_comes_from_the_cell_of_its_anchor():
    """Light up one corner of the picture: the anchors that change most lie there."""
    torch.manual_seed(0)
    detector = Detector(pretrained=False).eval()
    picture = torch.zeros(1, 3, 320, 320)
    picture[:, :, :64, 256:] = 1.0  # upper right
    with torch.no_grad():
        change = (detector(picture)[1] - detector(torch.zeros(1, 3, 320, 320))[1]).abs().sum(dim=2)[0]
    first = PRODUCT_ANCHORS[0]
    finest = slice(0, first.cells**2 * len(first.shapes))
    strongest = detector.anchors[finest][change[finest].argsort(descending=True)[:40]]
    assert strongest[:, 0].min() > 0.5
    assert strongest[:, 1].max() < 0.5


@given(boxes(1), boxes(1))
def test_decoding_undoes_encoding(found, priors):
    sides = priors[:, 2:] - priors[:, :2]
    centred = torch.cat([priors[:, :2] + sides / 2, sides], dim=1)[:1]
    assert torch.allclose(decode(encode(found, centred), centred), found, atol=1e-5)
    assert torch.allclose(corners(centred), priors[:1], atol=1e-6)


def overlap_of(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return shared / (area_a + area_b - shared), shared / area_a


@given(boxes(1, 8), boxes(0, 5), boxes(0, 3))
def test_matching_equals_the_rule_told_anchor_by_anchor(priors, truth, ignored):
    matched = match(priors, truth, ignored)
    ious, _ = iou_and_cover(priors, truth)
    favourites = {}
    for column in range(len(truth)):
        favourites[int(ious[:, column].argmax())] = column  # a later box takes a shared favourite
    for row, anchor in enumerate(priors.tolist()):
        pairs = [overlap_of(anchor, box) for box in truth.tolist()]
        best = max((iou for iou, _ in pairs), default=0.0)
        near_a_threshold = any(
            abs(value - edge) < 1e-4
            for value, edge in [
                (best, POSITIVE_IOU),
                (best, NEGATIVE_IOU),
                *((cover, COVERED) for _, cover in pairs),
                *((overlap_of(anchor, region)[1], COVERED) for region in ignored.tolist()),
            ]
        )
        if near_a_threshold:
            continue  # float32 and float64 may disagree there
        if row in favourites:
            expected = 1
            assert matched.box[row] == favourites[row]
        elif best >= POSITIVE_IOU:
            expected = 1
            assert ious[row, matched.box[row]] == pytest.approx(best, abs=1e-5)
        elif best >= NEGATIVE_IOU:
            expected = -1
        else:
            in_region = any(overlap_of(anchor, region)[1] >= COVERED for region in ignored.tolist())
            expected = -1 if in_region and not any(cover >= COVERED for _, cover in pairs) else 0
        assert matched.target[row] == expected
