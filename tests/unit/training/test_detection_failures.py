"""Every kind of error of a detector, one at a time and together."""

from __future__ import annotations

import numpy as np
import pytest

from training.detection.failures import MEANING, counts, failures
from training.detection.verdicts import Judged

JAR, TIN = 0, 1
THING = (0.1, 0.1, 0.5, 0.5)
HALF_OFF = (0.3, 0.1, 0.7, 0.5)  # IoU 1/3
FAR = (0.6, 0.6, 0.9, 0.9)


def photo(found, truth, ignored=()):
    """`found`: (box, label, score), best first; `truth`: (box, label)."""

    def as_boxes(values):
        return np.array([*values], np.float32).reshape(-1, 4)

    return Judged(
        as_boxes([box for box, _, _ in found]),
        np.array([score for _, _, score in found], np.float32),
        np.array([label for _, label, _ in found], np.int64),
        as_boxes([box for box, _ in truth]),
        np.array([label for _, label in truth], np.int64),
        as_boxes(ignored),
    )


def kinds(*photos):
    return [failure.kind for failure in failures(photos)]


def test_what_is_right_is_no_failure():
    assert kinds(photo([(THING, JAR, 0.9)], [(THING, JAR)])) == []


def test_a_thing_without_a_box_was_missed():
    (failure,) = failures([photo([], []), photo([], [(THING, TIN)])])
    assert (failure.kind, failure.photo, failure.label, failure.truth) == ("missed", 1, TIN, 0)
    assert failure.box == pytest.approx(THING)
    assert failure.badness == pytest.approx(0.16)  # its area


def test_a_second_box_on_a_thing_is_a_double():
    (failure,) = failures([photo([(THING, JAR, 0.9), (THING, JAR, 0.8)], [(THING, JAR)])])
    assert (failure.kind, failure.badness, failure.truth) == ("doubled", pytest.approx(0.8), 0)


def test_a_box_beside_its_thing_is_shifted_and_the_thing_is_not_missed_too():
    (failure,) = failures([photo([(HALF_OFF, JAR, 0.9)], [(THING, JAR)])])
    assert (failure.kind, failure.truth) == ("shifted", 0)
    assert failure.box == pytest.approx(HALF_OFF)


def test_a_box_on_nothing_is_false():
    assert kinds(photo([(FAR, JAR, 0.9)], [])) == ["false"]
    assert sorted(kinds(photo([(FAR, JAR, 0.9)], [(THING, JAR)]))) == ["false", "missed"]


def test_the_right_place_with_the_wrong_class_is_confused_and_the_thing_is_not_missed_too():
    (failure,) = failures([photo([(THING, TIN, 0.9)], [(THING, JAR)])])
    assert (failure.kind, failure.label, failure.truth) == ("confused", TIN, 0)


def test_wrong_in_class_and_place_is_false():
    assert sorted(kinds(photo([(HALF_OFF, TIN, 0.9)], [(THING, JAR)]))) == ["false", "missed"]


def test_a_box_in_an_ignored_region_is_none():
    assert kinds(photo([(FAR, JAR, 0.9)], [], ignored=[(0.5, 0.5, 1, 1)])) == []


def test_a_box_on_a_thing_of_another_class_and_near_one_of_its_own_is_confused():
    assert "confused" in kinds(photo([(THING, JAR, 0.9)], [(THING, TIN), (HALF_OFF, JAR)]))


def test_the_worst_come_first_and_every_kind_is_counted():
    found = failures(
        [
            photo([(FAR, JAR, 0.4)], [(THING, JAR)]),
            photo([(FAR, JAR, 0.9)], [((0, 0, 1, 1), JAR)]),  # IoU .09: false, not shifted
        ]
    )
    assert [f.badness for f in found] == sorted((f.badness for f in found), reverse=True)
    assert [f.photo for f in found if f.kind == "false"] == [1, 0]
    assert [f.photo for f in found if f.kind == "missed"] == [1, 0]
    assert counts(found) == {**dict.fromkeys(MEANING, 0), "missed": 2, "false": 2}


def test_what_is_not_sure_enough_is_cut_off_before():
    one = photo([(THING, JAR, 0.9), (FAR, JAR, 0.2)], [(THING, JAR)])
    assert kinds(one) == ["false"]
    assert kinds(one.above(0.5)) == []
