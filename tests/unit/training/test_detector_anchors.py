from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.detection.anchors import AnchorLevel, anchors, levels
from training.detection.box_coding import centred, corners, decode, encode
from training.detection.matching import COVERED, NEGATIVE_IOU, POSITIVE_IOU, iou_and_cover, match
from training.detection.recipe import Model
from training.models.detectors import dsod, ssd


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


def test_levels_grow_evenly_and_a_square_lies_between_each_and_the_next():
    made = levels([4, 2, 1], smallest=0.2, largest=0.8, ratios=(1.0, 2.0))
    assert [level.cells for level in made] == [4, 2, 1]
    for level, scale, following in zip(made, (0.2, 0.5, 0.8), (0.5, 0.8, 1.0), strict=True):
        expected = [(scale, 1.0), (scale, 2.0), (math.sqrt(scale * following), 1.0)]
        assert np.array(level.shapes) == pytest.approx(np.array(expected))


@pytest.mark.parametrize(("architecture", "strides"), [("dsod", dsod.STRIDES), ("ssd", ssd.STRIDES)])
def test_an_anchor_network_answers_once_for_every_anchor(architecture, strides):
    network = Model(architecture=architecture, size=160).build(3, pretrained=False).eval()
    with torch.no_grad():
        logits, offsets = network.head(network.features(torch.zeros(2, 3, 160, 160)))
    count = sum(math.ceil(160 / stride) ** 2 * 4 for stride in strides)
    assert network.head.anchors.shape == (count, 4)
    assert logits.shape == (2, count, 4)
    assert offsets.shape == (2, count, 4)


def test_an_answer_comes_from_the_cell_of_its_anchor():
    """Light up one corner of the picture: the anchors that change most lie there."""
    torch.manual_seed(0)
    network = Model(architecture="ssd", size=320).build(1).eval()
    picture = torch.zeros(1, 3, 320, 320)
    picture[:, :, :64, 256:] = 1.0  # upper right
    with torch.no_grad():
        lit, dark = (network.head(network.features(x))[1] for x in (picture, torch.zeros(1, 3, 320, 320)))
    finest = slice(0, 20 * 20 * 4)
    strongest = (lit - dark).abs().sum(dim=2)[0, finest].argsort(descending=True)[:40]
    assert network.head.anchors[strongest, 0].min() > 0.5
    assert network.head.anchors[strongest, 1].max() < 0.5


@given(boxes(1), boxes(1))
def test_decoding_undoes_encoding(found, priors):
    anchor = centred(priors)[:1]
    assert torch.allclose(decode(encode(found, anchor), anchor), found, atol=1e-5)
    assert torch.allclose(corners(anchor), priors[:1], atol=1e-6)


@given(boxes(1), boxes(1))
def test_offsets_are_those_of_the_paper_box_by_box(found, priors):
    for box in found.tolist():
        for x0, y0, x1, y1 in priors.tolist():
            width, height = x1 - x0, y1 - y0
            expected = [
                ((box[0] + box[2]) / 2 - (x0 + x1) / 2) / width / 0.1,
                ((box[1] + box[3]) / 2 - (y0 + y1) / 2) / height / 0.1,
                math.log((box[2] - box[0]) / width) / 0.2,
                math.log((box[3] - box[1]) / height) / 0.2,
            ]
            anchor = centred(torch.tensor([x0, y0, x1, y1]))
            assert encode(torch.tensor(box), anchor).tolist() == pytest.approx(expected, abs=1e-3)


def overlap_of(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return shared / (area_a + area_b - shared), shared / area_a


@given(
    boxes(1, 8),
    boxes(0, 5),
    boxes(0, 3),
    st.sampled_from([(POSITIVE_IOU, NEGATIVE_IOU), (0.7, 0.3), (0.5, 0.5)]),
)
def test_matching_equals_the_rule_told_anchor_by_anchor(priors, truth, ignored, thresholds):
    positive, negative = thresholds
    matched = match(priors, truth, ignored, positive=positive, negative=negative)
    ious, _ = iou_and_cover(priors, truth)
    favourites = {}
    for column in range(len(truth)):
        favourites[int(ious[:, column].argmax())] = column  # a later box takes a shared favourite
    for row, anchor in enumerate(priors.tolist()):
        best = max((overlap_of(anchor, box)[0] for box in truth.tolist()), default=0.0)
        visible = [min(value, 1.0) for value in anchor]
        of_boxes, of_regions = (
            [overlap_of(visible, region)[1] for region in regions.tolist()] for regions in (truth, ignored)
        )
        edges = [(best, positive), (best, negative), *((cover, COVERED) for cover in of_boxes + of_regions)]
        if any(abs(value - edge) < 1e-4 for value, edge in edges):
            continue  # float32 and float64 may disagree there
        if row in favourites:
            expected = 1
            assert matched.box[row] == favourites[row]
        elif best >= positive:
            expected = 1
            assert ious[row, matched.box[row]] == pytest.approx(best, abs=1e-5)
        elif best >= negative:
            expected = -1
        else:
            ignorable = any(cover >= COVERED for cover in of_regions)
            expected = -1 if ignorable and not any(cover >= COVERED for cover in of_boxes) else 0
        assert matched.target[row] == expected
