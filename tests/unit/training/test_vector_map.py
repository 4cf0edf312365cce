"""Maps: clusters lie together, what did not change stays where it was, what changed moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from magpie.errors import InvalidArgument
from training.evaluation.vector_map import (
    VectorMap,
    draw_map,
    load_maps,
    movements,
    place_in,
    radius,
    save_maps,
)

CLUSTERS, EACH = 5, 30
NAMES = [f"{row}.jpg" for row in range(CLUSTERS * EACH)]
LABELS = np.repeat(np.arange(CLUSTERS), EACH)
CLASSES = {name: f"cluster {label}" for name, label in zip(NAMES, LABELS, strict=True)}


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def centres() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(CLUSTERS, 16))


@pytest.fixture(scope="module")
def vectors(centres: np.ndarray) -> np.ndarray:
    return unit(centres[LABELS] + 0.5 * np.random.default_rng(1).normal(size=(len(NAMES), 16)))


@pytest.fixture(scope="module")
def old(vectors: np.ndarray) -> VectorMap:
    return draw_map(NAMES, vectors)


def nearest_labels(xy: np.ndarray) -> np.ndarray:
    distance = ((xy[:, None] - xy[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return LABELS[distance.argmin(axis=1)]


def test_clusters_lie_together_and_a_map_can_be_had_again(old: VectorMap, vectors: np.ndarray) -> None:
    assert (nearest_labels(old.xy) == LABELS).mean() > 0.95
    np.testing.assert_array_equal(draw_map(NAMES, vectors).xy, old.xy)


def test_what_did_not_change_stays_although_the_space_was_turned(old: VectorMap, vectors: np.ndarray) -> None:
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(16, 16)))[0]
    placed = place_in(old, NAMES, unit(vectors @ turn))
    moved = np.linalg.norm(placed.xy - old.xy, axis=1) / radius(old.xy)
    assert np.median(moved) < 0.1
    for row in movements(old, placed, CLASSES):
        assert row.pictures == EACH
        assert row.neighbours_kept > 0.99
        assert row.moved == pytest.approx(row.by_itself, abs=0.05)


def test_a_class_with_other_neighbours_moves_to_them(
    old: VectorMap, vectors: np.ndarray, centres: np.ndarray
) -> None:
    changed = vectors.copy()
    noise = np.random.default_rng(3).normal(size=(EACH, 16))
    changed[LABELS == 0] = unit(centres[1] + 0.5 * noise)
    placed = place_in(old, NAMES, changed)
    rows = {row.name: row for row in movements(old, placed, CLASSES)}
    assert rows["cluster 0"].moved > 5 * rows["cluster 0"].by_itself
    assert rows["cluster 0"].neighbours_kept < 0.6
    assert rows["cluster 3"].neighbours_kept > 0.99
    assert rows["cluster 3"].moved < 0.3 * rows["cluster 0"].moved
    gap = np.linalg.norm(np.subtract(rows["cluster 0"].centre_to, rows["cluster 1"].centre_to))
    was = np.linalg.norm(np.subtract(rows["cluster 0"].centre_from, rows["cluster 1"].centre_from))
    assert gap < 0.4 * was


def test_new_pictures_start_among_those_that_they_are_like(
    old: VectorMap, vectors: np.ndarray, centres: np.ndarray
) -> None:
    extra = unit(centres[[2] * 8] + 0.5 * np.random.default_rng(4).normal(size=(8, 16)))
    names = [*NAMES, *(f"new-{row}.jpg" for row in range(8))]
    placed = place_in(old, names, np.concatenate([vectors, extra]))
    centre = np.median(placed.xy[: len(NAMES)][LABELS == 2], axis=0)
    known = placed.xy[: len(NAMES)]
    others = [np.median(known[np.equal(LABELS, label)], axis=0) for label in (0, 1, 3, 4)]
    for point in placed.xy[len(NAMES) :]:
        assert np.linalg.norm(point - centre) < min(np.linalg.norm(point - other) for other in others)


def test_maps_are_kept(tmp_path: Path, old: VectorMap) -> None:
    path = tmp_path / "maps.npz"
    save_maps({"identity": old}, path)
    (again,) = load_maps(path).values()
    assert again.names == old.names
    np.testing.assert_array_equal(again.vectors, old.vectors)
    np.testing.assert_array_equal(again.xy, old.xy)
    path.write_bytes(b"something else")
    with pytest.raises(InvalidArgument, match=r"maps\.npz"):
        load_maps(path)


def test_too_few_pictures_are_refused(old: VectorMap, vectors: np.ndarray) -> None:
    with pytest.raises(InvalidArgument, match="too few"):
        draw_map(NAMES[:5], vectors[:5])
    with pytest.raises(InvalidArgument, match="0 of these pictures"):
        place_in(old, [f"other-{name}" for name in NAMES], vectors)
