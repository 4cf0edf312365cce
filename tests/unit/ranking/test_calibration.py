"""The curves of a bundle: their arithmetic, their file, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magpie.errors import FailedPrecondition
from magpie.ranking.calibration import Calibration, Curve, SpaceCalibration

SHA256 = "ab" * 32


def calibration() -> Calibration:
    juice, tea = Curve(20.0, -16.0, 60, 9), Curve(0.0, -2.0, 4, 0)
    identity = SpaceCalibration(Curve(8.0, -4.0, 100, 30), {"Juice": juice, "Tea": tea}, 10.0, 0.3, 0.02)
    similar = SpaceCalibration(Curve(5.0, -3.0, 100, 30), {}, None, 0.4, 0.03)
    return Calibration(SHA256, {"identity": identity, "similar": similar}, "photos of a test")


def test_every_category_has_its_curve_and_unknown_ones_that_of_all() -> None:
    similarity = np.array([0.9, 0.9, 0.9, -0.5], np.float32)
    got = calibration().probability("identity", similarity, ["Juice", "Tea", "Bread", ""])
    expected = [
        1 / (1 + math.exp(-(slope * s + intercept)))
        for s, (slope, intercept) in zip(
            similarity.tolist(), [(20, -16), (0, -2), (8, -4), (8, -4)], strict=True
        )
    ]
    assert got == pytest.approx(expected)
    one = calibration().probability("identity", similarity, "Juice")
    assert one == pytest.approx(calibration().probability("identity", similarity, ["Juice"] * 4))
    assert calibration().probability("similar", similarity, "Juice")[0] == pytest.approx(
        1 / (1 + math.exp(-1.5))
    )


def test_a_probability_is_never_0_or_1_and_never_falls() -> None:
    steep = Curve(1e9, -1e8, 10, 5)
    curves = Calibration(SHA256, {"identity": SpaceCalibration(steep, {}, None, 0, 0)})
    got = curves.probability("identity", np.linspace(-1, 1, 201), "")
    assert ((got > 0) & (got < 1)).all()
    assert (np.diff(got) >= 0).all()


def test_the_highest_is_that_of_the_category_that_gives_most() -> None:
    assert calibration().highest("identity") == pytest.approx(1 / (1 + math.exp(-4)))
    assert calibration().highest("similar") == pytest.approx(1 / (1 + math.exp(-2)))


def test_a_space_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        calibration().probability("colour", np.zeros(1), "")


def test_nothing_in_nothing_out() -> None:
    assert calibration().probability("identity", np.zeros(0), []).shape == (0,)


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    calibration().save(tmp_path / "calibration.json")
    read = Calibration.load(tmp_path, "calibration.json", SHA256)
    assert read == calibration()
    values = np.linspace(-1, 1, 9)
    assert (
        read.probability("identity", values, "Juice")
        == calibration().probability("identity", values, "Juice")
    ).all()


def test_one_fitted_to_another_embedder_is_refused(tmp_path: Path) -> None:
    calibration().save(tmp_path / "calibration.json")
    with pytest.raises(
        FailedPrecondition, match=r"calibration\.json was fitted to an embedder with SHA-256 abab"
    ):
        Calibration.load(tmp_path, "calibration.json", "cd" * 32)


def change(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**values, **changes}


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (lambda v: change(v, format=2), "has format 2"),
        (lambda v: [v], "TypeError"),
        (lambda v: {k: x for k, x in v.items() if k != "spaces"}, "KeyError.*spaces"),
        (lambda v: change(v, spaces=[]), "AttributeError"),
        (lambda v: change(v, spaces={"identity": 3}), "AttributeError"),
        (lambda v: change(v, spaces={"similar": v["spaces"]["similar"]}), "lacks the space `identity`"),
        (lambda v: v["spaces"]["identity"]["everywhere"].update(slope=-1) or v, "no rising curve"),
        (lambda v: v["spaces"]["identity"]["everywhere"].update(slope=float("nan")) or v, "no rising curve"),
        (lambda v: v["spaces"]["identity"]["categories"]["Tea"].pop("intercept") and v, "TypeError"),
        (lambda v: v["spaces"]["identity"].update(extra=1) or v, "TypeError"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name(tmp_path: Path, mend: Any, message: str) -> None:
    path = tmp_path / "calibration.json"
    calibration().save(path)
    path.write_text(json.dumps(mend(json.loads(path.read_text()))))
    with pytest.raises(FailedPrecondition, match=rf"calibration\.json.*{message}"):
        Calibration.load(tmp_path, "calibration.json", SHA256)


@pytest.mark.parametrize("text", ["", "{", "\xff"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FailedPrecondition, match=r"calibration\.json"):
        Calibration.load(tmp_path, "calibration.json", SHA256)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"calibration\.json.*No such file"):
        Calibration.load(tmp_path, "calibration.json", SHA256)
