from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.geometry import iou
from training.detection.verdicts import Judged, best_f1_threshold, share_inside, verdicts


@st.composite
def judged_photos(draw):
    corner = st.integers(0, 6)
    side = st.integers(1, 4)
    rows = st.lists(st.tuples(corner, corner, side, side), max_size=6)

    def as_boxes(values):
        return np.array([(x, y, x + w, y + h) for x, y, w, h in values], np.float32).reshape(-1, 4) / 10

    def labels(boxes):
        return np.array(draw(st.lists(st.integers(0, 1), min_size=len(boxes), max_size=len(boxes))), np.int64)

    photos = []
    for _ in range(draw(st.integers(1, 3))):
        found, truth = as_boxes(draw(rows)), as_boxes(draw(rows))
        numbers = st.lists(st.integers(1, 10), min_size=len(found), max_size=len(found))
        scores = np.array(sorted(draw(numbers), reverse=True), np.float32) / 10
        ignored = as_boxes(draw(rows))
        photos.append(Judged(found, scores, labels(found), truth, labels(truth), ignored))
    return photos


def naive_share(box, region):
    width = min(box[2], region[2]) - max(box[0], region[0])
    height = min(box[3], region[3]) - max(box[1], region[1])
    return max(width, 0) * max(height, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


def naive_verdicts(photo, threshold):
    taken, answers = set(), []
    for box, label in zip(photo.found, photo.labels, strict=True):
        best, best_iou = None, threshold
        for index, (truth, name) in enumerate(zip(photo.truth, photo.truth_labels, strict=True)):
            value = iou(box[None], truth[None])[0, 0]
            free = label == name and index not in taken
            if free and value >= best_iou and (best is None or value > best_iou):
                best, best_iou = index, value
        if best is not None:
            taken.add(best)
            answers.append(1)
        else:
            beside = share_inside(box[None], photo.ignored)[0]
            answers.append(-1 if any(value >= threshold for value in beside) else 0)
    return answers


def naive_best_f1(photos):
    """Every score as the cut-off in turn, the boxes counted anew each time."""
    best = 0.0
    total = sum(len(photo.truth) for photo in photos)
    for cut in {float(score) for photo in photos for score in photo.scores}:
        right = wrong = 0
        for photo in photos:
            for score, answer in zip(photo.scores, naive_verdicts(photo, 0.5), strict=True):
                right += score >= cut and answer == 1
                wrong += score >= cut and answer == 0
        if right:
            best = max(best, 2 * right / (right + wrong + total))
    return best


@given(judged_photos())
def test_verdicts_equal_naive_loops(photos):
    for photo in photos:
        assert verdicts(photo, 0.5).tolist() == naive_verdicts(photo, 0.5)
        shares = share_inside(photo.found, photo.ignored)
        naive = [[naive_share(box, region) for region in photo.ignored] for box in photo.found]
        assert shares == pytest.approx(np.array(naive, np.float32).reshape(shares.shape), abs=1e-5)


@given(judged_photos())
def test_the_best_f1_is_that_of_trying_every_score(photos):
    assert best_f1_threshold(photos)[1] == pytest.approx(naive_best_f1(photos))


BOX = np.array([[0.1, 0.1, 0.5, 0.5]], np.float32)
FAR = np.array([[0.6, 0.6, 0.9, 0.9]], np.float32)
NONE = np.zeros((0, 4), np.float32)
WHOLE = np.array([[0, 0, 1, 1]], np.float32)


def photo(found, scores, truth, ignored=NONE, labels=None):
    found = np.concatenate(found)
    named = np.zeros(len(found), np.int64) if labels is None else np.array(labels)
    return Judged(found, np.array(scores, np.float32), named, truth, np.zeros(len(truth), np.int64), ignored)


def test_a_second_box_on_the_same_thing_is_wrong_and_one_on_an_ignored_thing_is_not():
    assert verdicts(photo([BOX, BOX], [0.9, 0.8], BOX), 0.5).tolist() == [1, 0]
    assert verdicts(photo([FAR, BOX], [0.9, 0.8], BOX, ignored=FAR), 0.5).tolist() == [-1, 1]


def test_a_small_box_in_a_large_ignored_region_is_not_judged_but_what_is_to_be_found_there_is():
    small = np.array([[0.65, 0.65, 0.7, 0.7]], np.float32)
    assert verdicts(photo([small], [0.9], BOX, ignored=FAR), 0.5).tolist() == [-1]
    assert verdicts(photo([BOX], [0.9], BOX, ignored=WHOLE), 0.5).tolist() == [1]


def test_a_box_of_another_class_is_wrong():
    assert verdicts(photo([BOX], [0.9], BOX, labels=[1]), 0.5).tolist() == [0]


def test_the_best_threshold_cuts_off_the_false_alarms():
    threshold, f1 = best_f1_threshold(
        [photo([BOX, FAR], [0.9, 0.3], BOX), photo([BOX, FAR], [0.7, 0.4], BOX)]
    )
    assert (threshold, f1) == (pytest.approx(0.7), pytest.approx(1.0))


def test_without_photos_or_boxes_nothing_is_sure_enough():
    assert best_f1_threshold([]) == (1.0, 0.0)
    assert best_f1_threshold([photo([NONE], [], BOX)]) == (1.0, 0.0)
