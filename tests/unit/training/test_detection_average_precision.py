from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.geometry import iou
from training.detection.average_precision import (
    Judged,
    average_precision,
    best_f1_threshold,
    recall_at,
    verdicts,
)


@st.composite
def judged_photos(draw):
    corner = st.integers(0, 6)
    side = st.integers(1, 4)
    rows = st.lists(st.tuples(corner, corner, side, side), max_size=6)

    def as_boxes(values):
        return np.array([(x, y, x + w, y + h) for x, y, w, h in values], np.float32).reshape(-1, 4) / 10

    photos = []
    for _ in range(draw(st.integers(1, 3))):
        found = as_boxes(draw(rows))
        distinct = st.lists(st.integers(1, 10**6), min_size=len(found), max_size=len(found), unique=True)
        scores = np.array(sorted(draw(distinct), reverse=True), np.float32) / 10**6
        photos.append(Judged(found, scores, as_boxes(draw(rows)), as_boxes(draw(rows))))
    return photos


def naive_verdicts(photo, threshold):
    taken, answers = set(), []
    for box in photo.found:
        best, best_iou = None, threshold
        for index, truth in enumerate(photo.truth):
            value = iou(box[None], truth[None])[0, 0]
            if index not in taken and value >= best_iou and (best is None or value > best_iou):
                best, best_iou = index, value
        if best is not None:
            taken.add(best)
            answers.append(1)
        else:
            answers.append(
                -1 if any(iou(box[None], i[None])[0, 0] >= threshold for i in photo.ignored) else 0
            )
    return answers


def naive_average_precision(photos, threshold=0.5):
    """Sum over recall levels k / total of the best precision at that recall or beyond."""
    total = sum(len(photo.truth) for photo in photos)
    if not total:
        return 0.0
    answers = sorted(
        (
            (score, answer)
            for photo in photos
            for score, answer in zip(photo.scores, naive_verdicts(photo, threshold), strict=True)
        ),
        key=lambda pair: -pair[0],
    )
    points, hits, seen = [], 0, 0
    for _, answer in answers:
        if answer >= 0:
            seen += 1
            hits += answer
            points.append((hits, hits / seen))
    levels = [max((p for h, p in points if h >= k), default=0.0) for k in range(1, total + 1)]
    return sum(levels) / total


@given(judged_photos())
def test_verdicts_and_average_precision_equal_naive_loops(photos):
    for photo in photos:
        assert verdicts(photo, 0.5).tolist() == naive_verdicts(photo, 0.5)
    scores = np.concatenate([photo.scores for photo in photos])
    if len(set(scores.tolist())) == len(scores):  # ties between photos may be taken in any order
        assert average_precision(photos) == pytest.approx(naive_average_precision(photos))


BOX = np.array([[0.1, 0.1, 0.5, 0.5]], np.float32)
FAR = np.array([[0.6, 0.6, 0.9, 0.9]], np.float32)
NONE = np.zeros((0, 4), np.float32)


def photo(found, scores, truth, ignored=NONE):
    return Judged(np.concatenate(found), np.array(scores, np.float32), truth, ignored)


def test_a_false_alarm_costs_only_above_the_hit():
    assert average_precision([photo([FAR, BOX], [0.9, 0.8], BOX)]) == pytest.approx(0.5)
    assert average_precision([photo([BOX, FAR], [0.9, 0.8], BOX)]) == pytest.approx(1.0)


def test_a_second_box_on_the_same_thing_is_wrong_and_one_on_an_ignored_thing_is_not():
    assert verdicts(photo([BOX, BOX], [0.9, 0.8], BOX), 0.5).tolist() == [1, 0]
    assert verdicts(photo([FAR, BOX], [0.9, 0.8], BOX, ignored=FAR), 0.5).tolist() == [-1, 1]


def test_recall_counts_the_best_few_only():
    both = np.concatenate([BOX, FAR])
    assert recall_at([photo([FAR, BOX], [0.9, 0.8], both)], 1) == pytest.approx(0.5)
    assert recall_at([photo([FAR, BOX], [0.9, 0.8], both)], 2) == pytest.approx(1.0)


def test_the_best_threshold_cuts_off_the_false_alarms():
    threshold, f1 = best_f1_threshold(
        [photo([BOX, FAR], [0.9, 0.3], BOX), photo([BOX, FAR], [0.7, 0.4], BOX)]
    )
    assert (threshold, f1) == (pytest.approx(0.7), pytest.approx(1.0))
