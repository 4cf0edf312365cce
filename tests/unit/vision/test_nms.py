from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from magpie.vision.nms import CANDIDATES, nms


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def naive_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, limit: int) -> list[int]:
    """Every box against every box that stays, one by one."""
    kept: list[int] = []
    for row in sorted(range(len(boxes)), key=lambda i: -scores[i])[:CANDIDATES]:
        if len(kept) < limit and all(overlap(boxes[row], boxes[other]) <= threshold for other in kept):
            kept.append(row)
    return kept


# On a grid of eighths every area is exact, so that both sides of the threshold are the same everywhere.
EDGES = st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 8), st.integers(1, 8))
BOXES = EDGES.map(lambda e: (e[0] / 8, e[1] / 8, min(8, e[0] + e[2]) / 8, min(8, e[1] + e[3]) / 8))


@given(
    st.lists(st.tuples(BOXES, st.integers(0, 10)), max_size=40),
    st.sampled_from([0.0, 0.3, 0.45, 0.55, 1.0]),
    st.integers(0, 12),
)
def test_agrees_with_the_naive_loop(rows: list, threshold: float, limit: int) -> None:
    boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score / 10 for _, score in rows], np.float32)  # many ties
    assert nms(boxes, scores, threshold, limit).tolist() == naive_nms(boxes, scores, threshold, limit)


def test_agrees_on_as_many_boxes_as_a_detector_gives() -> None:
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 0.8, (600, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.02, 0.2, (600, 2))], axis=1).astype(np.float32)
    scores = rng.uniform(size=600).astype(np.float32)
    kept = nms(boxes, scores, 0.5, 30)
    assert kept.tolist() == naive_nms(boxes, scores, 0.5, 30)
    assert len(kept) == 30


def test_only_the_best_candidates_are_looked_at() -> None:
    boxes = np.tile(np.array([[0, 0, 0.5, 0.5]], np.float32), (CANDIDATES + 1, 1))
    boxes[-1] = (0.6, 0.6, 1, 1)  # apart from all others, but the last
    scores = np.linspace(1, 0.5, CANDIDATES + 1).astype(np.float32)
    assert nms(boxes, scores, 0.5, 10).tolist() == [0]
    assert nms(boxes[1:], scores[1:], 0.5, 10).tolist() == [0, CANDIDATES - 1]


def test_classes_suppress_one_another_and_the_best_stays() -> None:
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.52], [0.6, 0.6, 1, 1]], np.float32)
    assert nms(boxes, np.array([0.4, 0.9, 0.5], np.float32), 0.5, 10).tolist() == [1, 2]


def test_nothing_in_nothing_out() -> None:
    assert nms(np.empty((0, 4), np.float32), np.empty(0, np.float32), 0.5, 10).size == 0
