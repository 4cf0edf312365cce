"""The probe finds a bias that was planted, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.source_probe import LEAST, probe


def vectors(bias: float, seed: int = 0) -> tuple[np.ndarray, list[str], list[str | None]]:
    """Three categories, five sources of eight pictures each; `bias`: how far a source shifts its vectors."""
    rng = np.random.default_rng(seed)
    kinds, owners = rng.normal(size=(3, 16)), rng.normal(size=(5, 16))
    rows = [(k, s) for k in range(3) for s in range(5) for _ in range(8)]
    found = np.array([3 * kinds[k] + bias * owners[s] + 0.7 * rng.normal(size=16) for k, s in rows])
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit.astype(np.float32), [f"kind {k}" for k, _ in rows], [f"source {s}" for _, s in rows]


def test_a_planted_bias_is_found() -> None:
    found = probe(*vectors(bias=1.0))
    assert found is not None
    assert (found.pictures, found.categories, found.sources) == (120, 3, 15)
    assert found.nearest > 0.8
    assert found.linear > 0.8
    assert found.p_value < 0.005
    assert found.excess > 0.7


def test_without_bias_it_is_chance() -> None:
    found = [probe(*vectors(bias=0.0, seed=seed)) for seed in range(16)]
    results = [result for result in found if result is not None]
    assert len(results) == 16
    assert sum(result.p_value < 0.05 for result in results) <= 3  # one of twenty is false alarm
    assert np.mean([result.p_value for result in results]) == pytest.approx(0.5, abs=0.25)
    # 7 of the other 39 are of the same source.
    assert np.mean([result.chance for result in results]) == pytest.approx(7 / 39, abs=0.005)
    assert np.mean([result.nearest for result in results]) == pytest.approx(7 / 39, abs=0.03)
    assert np.mean([result.linear for result in results]) == pytest.approx(0.2, abs=0.05)
    assert {result.majority for result in results} == {0.2}


def test_sources_of_few_pictures_and_unknown_ones_take_no_part() -> None:
    rows, kinds, owners = vectors(bias=1.0)
    few = [*[f"rare {i % 40}" for i in range(80)], *[None] * 40]
    assert LEAST > 2
    assert probe(rows, kinds, few) is None
    assert probe(rows, kinds, ["one"] * len(rows)) is None
    mixed: list[str | None] = [*owners[:40], *few[40:]]
    found = probe(rows, kinds, mixed)
    assert found is not None
    assert (found.pictures, found.categories) == (40, 1)
