"""COCO's figures, beside those of pycocotools and beside cases worked out by hand."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from training.detection.box_sizes import SIDE, SIZES, size_counts
from training.detection.coco_metrics import coco_figures, coco_results, coco_truth
from training.detection.verdicts import Judged

TAXONOMY = ("jar", "box", "tin")
NONE = np.zeros((0, 4), np.float32)
BOX = np.array([[0.1, 0.1, 0.5, 0.5]], np.float32)
FAR = np.array([[0.6, 0.6, 0.9, 0.9]], np.float32)


def boxes(rng, count):
    corners = rng.uniform(0, 0.8, (count, 2))
    sides = rng.choice([0.05, 0.2, 0.5], (count, 1)) * rng.uniform(0.5, 1, (count, 2))
    return np.concatenate([corners, np.minimum(corners + sides, 1)], axis=1).astype(np.float32)


def random_photo(rng):
    """Some of what is there is found, a little off, some twice, beside boxes on nothing."""
    truth, ignored = boxes(rng, int(rng.integers(0, 6))), boxes(rng, int(rng.integers(0, 3)))
    labels = rng.integers(len(TAXONOMY), size=len(truth))
    again = [np.flatnonzero(rng.random(len(truth)) < share) for share in (0.8, 0.3)]
    moved = np.concatenate([truth[rows] for rows in again])
    moved = np.clip(moved + rng.normal(0, 0.02, moved.shape), 0, 1).astype(np.float32)
    moved = np.concatenate(
        [np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], 1
    )
    wild = np.concatenate([boxes(rng, int(rng.integers(0, 4))), ignored])
    found = np.concatenate([moved, wild])
    named = np.concatenate([*(labels[rows] for rows in again), rng.integers(len(TAXONOMY), size=len(wild))])
    scores = np.sort(rng.random(len(found)))[::-1].astype(np.float32)
    order = rng.permutation(len(found))
    return Judged(found[order], scores, named[order].astype(np.int64), truth, labels, ignored)


def by_pycocotools(photos, classes):
    """(AP, AP50, AP75, AR at 100), AP by size; those of the reference implementation."""
    with redirect_stdout(StringIO()):
        known = COCO()
        known.dataset = coco_truth(photos, classes)
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(coco_results(photos)), "bbox")
        evaluation.params.areaRng = [[0, SIDE**2 * 4], *map(list, SIZES.values())]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]

    def mean(values):
        return float(values[values > -1].mean()) if (values > -1).any() else float("nan")

    figures = [mean(precision[rows, :, :, 0, -1]) for rows in (slice(None), 0, 5)]
    sizes = [mean(precision[:, :, :, size, -1]) for size in (1, 2, 3)]
    of_class = [mean(precision[:, :, label, 0, -1]) for label in range(classes)]
    return [*figures, mean(recall[:, :, 0, -1])], sizes, of_class


@pytest.mark.parametrize("seed", range(12))
def test_the_figures_are_those_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    photos = [random_photo(rng) for _ in range(8)]
    photos.append(
        Judged(NONE, np.zeros(0, np.float32), np.zeros(0, np.int64), NONE, np.zeros(0, np.int64), NONE)
    )
    ours = coco_figures(photos, TAXONOMY)
    figures, sizes, of_class = by_pycocotools(photos, len(TAXONOMY))
    assert list(ours.summary().values()) == pytest.approx(figures, nan_ok=True)
    assert [ours.by_size[name]["AP"] for name in SIZES] == pytest.approx(sizes, nan_ok=True)
    assert [ours.by_class[name]["AP"] for name in TAXONOMY] == pytest.approx(of_class, nan_ok=True)


def photo(found, scores, truth, ignored=NONE, labels=None, truth_labels=None):
    found = np.concatenate([NONE, *found])
    return Judged(
        found,
        np.array(scores, np.float32),
        np.zeros(len(found), np.int64) if labels is None else np.array(labels),
        truth,
        np.zeros(len(truth), np.int64) if truth_labels is None else np.array(truth_labels),
        ignored,
    )


def figures_of(*photos, taxonomy=("product",)):
    return coco_figures(photos, taxonomy)


def test_what_is_found_exactly_counts_in_full_and_a_false_alarm_only_above_it():
    assert figures_of(photo([BOX], [0.9], BOX)).ap == pytest.approx(1.0)
    assert figures_of(photo([BOX, FAR], [0.9, 0.8], BOX)).ap == pytest.approx(1.0)
    assert figures_of(photo([FAR, BOX], [0.9, 0.8], BOX)).ap == pytest.approx(0.5)


def test_a_shifted_box_counts_up_to_its_overlap():
    # IoU 2/3: right at .50, .55, .60 and .65, four of COCO's ten thresholds.
    wide = np.array([[0.1, 0.1, 0.5, 0.7]], np.float32)
    figures = figures_of(photo([wide], [0.9], BOX))
    assert (figures.ap50, figures.ap75) == (pytest.approx(1.0), pytest.approx(0.0))
    assert figures.ap == pytest.approx(0.4)
    assert figures.recall == pytest.approx(0.4)


def test_boxes_in_ignored_regions_are_neither_right_nor_wrong_whatever_their_class():
    inside = np.array([[0.65, 0.65, 0.7, 0.7]], np.float32)  # of FAR
    for label in (0, 1):
        one = photo([inside, BOX], [0.9, 0.8], BOX, ignored=FAR, labels=[label, 0])
        assert figures_of(one, taxonomy=("jar", "box")).ap == pytest.approx(1.0)


def test_a_box_of_another_class_finds_nothing():
    one = photo([BOX], [0.9], BOX, labels=[1], truth_labels=[0])
    figures = figures_of(one, taxonomy=("jar", "box"))
    assert figures.ap == pytest.approx(0.0)
    assert figures.by_class["jar"]["AP"] == pytest.approx(0.0)
    assert np.isnan(figures.by_class["box"]["AP"])  # none is there


def test_sizes_are_those_of_the_detectors_square():
    small, large = np.array([[[0.1, 0.1, 0.15, 0.15]], [[0.5, 0.5, 0.9, 0.9]]], np.float32)  # 16, 128 px
    figures = figures_of(photo([small], [0.9], np.concatenate([small, large])))
    assert figures.by_size["small"]["recall@100"] == pytest.approx(1.0)
    assert figures.by_size["large"]["recall@100"] == pytest.approx(0.0)
    assert np.isnan(figures.by_size["medium"]["recall@100"])


def test_no_detection_at_all_is_no_recall_and_no_error():
    figures = figures_of(photo([], [], BOX), photo([], [], NONE))
    assert (figures.ap, figures.recall) == (0.0, 0.0)


@pytest.mark.parametrize("photos", [(), (photo([], [], NONE),), (photo([BOX], [0.9], NONE),)])
def test_where_nothing_is_there_no_figure_is(photos):
    figures = figures_of(*photos)
    assert np.isnan([figures.ap, figures.ap50, figures.recall]).all()


def test_boxes_are_counted_by_the_sizes_that_figures_are_given_for():
    sides = np.array([31.0, 33.0, 95.0, 97.0, 320.0]) / SIDE
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    assert size_counts(boxes) == {"small": 1, "medium": 2, "large": 2}
    assert size_counts(boxes[:0]) == {"small": 0, "medium": 0, "large": 0}
