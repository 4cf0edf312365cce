"""What a candidate pays for lying near to every photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from magpie.errors import FailedPrecondition
from magpie.ranking.calibration import Calibration, Curve, SpaceCalibration
from magpie.ranking.config import validate
from magpie.ranking.hubness import FILE, Hubness
from magpie.ranking.rank import rank
from magpie.v1.product_pb2 import Product
from magpie.v1.ranking_config_pb2 import Fusion, RankingConfig
from magpie.v1.search_pb2 import Candidate

SHA = "a" * 64


def unit(rows: int, seed: int, dimension: int = 6) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99), st.floats(0, 1))
def test_penalty_equals_the_loop(references: int, nearest: int, seed: int, strength: float) -> None:
    hubness = Hubness(SHA, unit(references, seed), min(nearest, references), strength, usual=0.3)
    vectors = unit(5, seed + 1)
    expected = []
    for vector in vectors:
        largest = sorted((float(vector @ reference) for reference in hubness.references), reverse=True)
        largest = largest[: hubness.nearest]
        expected.append(strength * (sum(largest) / len(largest) - 0.3))
    assert hubness.penalty(vectors) == pytest.approx(expected, abs=1e-6)


def test_it_survives_the_file(tmp_path: Path) -> None:
    hubness = Hubness(SHA, unit(40, 1, 128), 8, 0.5, 0.25)
    hubness.save(tmp_path)
    loaded = Hubness.load(tmp_path, FILE, SHA)
    assert (loaded.nearest, loaded.strength, loaded.usual) == (8, 0.5, 0.25)
    assert loaded.penalty(unit(9, 2, 128)) == pytest.approx(hubness.penalty(unit(9, 2, 128)), abs=1e-3)
    assert np.linalg.norm(loaded.references, axis=1) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "hubness.npz"),
        (lambda path: path.write_bytes(b""), "hubness.npz"),
        (lambda path: np.savez(path, format=2), "has format 2, this Magpie reads 1"),
        (lambda path: np.savez(path, format=1), "hubness.npz"),
        (lambda path: Hubness("b" * 64, unit(3, 0), 1, 0.5, 0.0).save(path.parent), "export the bundle anew"),
        (lambda path: Hubness(SHA, unit(3, 0), 4, 0.5, 0.0).save(path.parent), "`nearest` or `strength`"),
        (lambda path: Hubness(SHA, unit(3, 0), 1, np.nan, 0.0).save(path.parent), "`nearest` or `strength`"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, spoil: object, message: str) -> None:
    Hubness(SHA, unit(3, 0), 1, 0.5, 0.0).save(tmp_path)
    spoil(tmp_path / FILE)  # type: ignore[operator]
    with pytest.raises(FailedPrecondition, match=message):
        Hubness.load(tmp_path, FILE, SHA)


# Of two candidates for a photo one lies near to every photo.
RIGHT, HUB = (np.array(v, np.float32) for v in ([1, 0, 0], [0, 1, 0]))
EVERYDAY = np.array([[0, 1, 0]] * 3, np.float32)


def search(
    hubness: Hubness | None, method: Fusion.Method.ValueType = Fusion.METHOD_WEIGHTED, space: str = "identity"
) -> list[tuple[str, float, float, str]]:
    candidates = [
        Candidate(product_id=name, similarity={space: similarity}, identity=vector.tobytes())
        for name, similarity, vector in (("right", 0.80, RIGHT), ("hub", 0.85, HUB))
    ]
    config = validate(RankingConfig(fusion=Fusion(method=method, weights={space: 1.0})), [space])
    curve = SpaceCalibration(Curve(8.0, -4.0, 100, 30), {}, None, 0.3, 0.02)
    hits = rank(
        config,
        candidates,
        {name: Product(id=name) for name in ("right", "hub")},
        limit=5,
        explain=True,
        calibration=Calibration(SHA, {"identity": curve}) if space == "identity" else None,
        hubness=hubness,
    )
    return [(hit.product_id, hit.score, hit.probability, hit.reasons[0].note) for hit in hits]


@pytest.mark.parametrize("method", [Fusion.METHOD_WEIGHTED, Fusion.METHOD_RRF])
def test_a_hub_no_longer_stands_before_what_is_looked_for(method: Fusion.Method.ValueType) -> None:
    hubness = Hubness(SHA, EVERYDAY, nearest=2, strength=0.5, usual=0.5)
    assert [name for name, *_ in search(None, method)] == ["hub", "right"]
    assert [name for name, *_ in search(hubness, method)] == ["right", "hub"]
    assert [name for name, *_ in search(replace(hubness, strength=0.0), method)] == ["hub", "right"]


def test_the_score_pays_and_says_so_and_the_probability_does_not() -> None:
    hubness = Hubness(SHA, EVERYDAY, nearest=2, strength=0.5, usual=0.5)
    before = {name: rest for name, *rest in search(None)}
    after = {name: rest for name, *rest in search(hubness)}
    assert after["hub"][0] == pytest.approx(before["hub"][0] - 0.25)
    assert after["right"][0] == pytest.approx(before["right"][0] + 0.25)
    assert after["hub"][1] == before["hub"][1]
    assert after["hub"][2] == "similarity 0.850, hubness -0.250, weight 1"
    assert before["hub"][2] == "similarity 0.850, weight 1"


def test_a_config_without_identity_has_no_hubness() -> None:
    hubness = Hubness(SHA, EVERYDAY, nearest=2, strength=0.5, usual=0.5)
    assert search(hubness, space="similar") == search(None, space="similar")
