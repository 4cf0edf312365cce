"""Calibration: the curves against naive loops and another solver, and what is held out stays out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from magpie.errors import InvalidArgument
from magpie.ranking.calibration import Calibration
from training.calibration import platt
from training.calibration.fit import fit_calibration, measure_calibration
from training.calibration.pairs import hits
from training.calibration.reliability import Reliability, draw, expected_calibration_error

SHA256 = "ab" * 32
rng_seeds = st.integers(0, 2**32 - 1)


def penalised(x: np.ndarray, target: np.ndarray, prior: np.ndarray, strength: float) -> np.ndarray:
    """Another solver's answer."""

    def loss(curve: np.ndarray) -> float:
        z = curve[0] * x + curve[1]
        return float((np.logaddexp(0, z) - target * z).sum() + strength / 2 * ((curve - prior) ** 2).sum())

    found = minimize(
        loss, prior, method="L-BFGS-B", bounds=[(0, None), (None, None)], options={"ftol": 1e-14}
    )
    return np.asarray(found.x)


@settings(max_examples=20)
@given(rng_seeds, st.floats(0.5, 100), st.floats(-2, 4))
def test_a_curve_near_another_equals_another_solver(seed: int, strength: float, slope: float) -> None:
    rng = np.random.default_rng(seed)
    x, group = rng.normal(size=60), rng.integers(0, 3, 60)
    right = rng.random(60) < 1 / (1 + np.exp(-(slope * x - 1)))
    prior = np.array([1.5, -0.5])
    curves = platt.fit_near(x, right, group, 4, prior, strength)
    for number in range(3):
        rows = group == number
        expected = penalised(x[rows], right[rows].astype(float), prior, strength)
        assert curves[number] == pytest.approx(expected, abs=2e-3)
    assert curves[3] == pytest.approx(prior)  # no pairs


def test_platts_targets_keep_a_parted_curve_finite() -> None:
    x = np.linspace(-1, 1, 40)
    curve = platt.fit(x, x > 0)
    assert 1 < curve[0] < 100
    target = np.where(x > 0, 21 / 22, 1 / 22)
    assert curve == pytest.approx(penalised(x, target, np.zeros(2), 0.0), rel=1e-2, abs=1e-2)


def test_a_falling_curve_becomes_flat() -> None:
    x = np.linspace(-1, 1, 40)
    slope, intercept = platt.fit(x, x < 0)
    assert slope == 0
    assert 1 / (1 + np.exp(-intercept)) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80), st.integers(1, 20))
def test_the_error_equals_the_naive_loop(pairs: list[tuple[float, bool]], bins: int) -> None:
    probability = np.array([p for p, _ in pairs])
    right = np.array([r for _, r in pairs])
    ordered = sorted(pairs, key=lambda pair: pair[0])  # stable
    size, extra = divmod(len(pairs), bins)
    expected, first = 0.0, 0
    for number in range(bins):
        part = ordered[first : first + size + (number < extra)]
        first += len(part)
        if part:
            said = sum(p for p, _ in part) / len(part)
            true = sum(r for _, r in part) / len(part)
            expected += len(part) / len(pairs) * abs(said - true)
    assert expected_calibration_error(probability, right, bins) == pytest.approx(expected)


def test_pairs_are_the_first_hits_by_the_default_fusion() -> None:
    rng = np.random.default_rng(0)
    spaces = ("identity", "category", "similar")
    similarity = {space: rng.uniform(-1, 1, (7, 6)).astype(np.float32) for space in spaces}
    product = ["b", "a", "b", "c", "d", "a"]
    owner = ["a", "b", "c", "d", "a", "b", "elsewhere"]
    same = np.array([[mine == other for other in product] for mine in owner])
    category = [{"a": "x", "b": "y", "c": "x", "d": ""}[name] for name in product]
    got = hits(similarity, same, category, top=3, product=product)
    row = 0
    for photo in range(7):
        best = {
            name: {s: max(similarity[s][photo, g] for g in range(6) if product[g] == name) for s in spaces}
            for name in "abcd"
        }
        ranked = sorted(
            "abcd",
            key=lambda n: -(0.6 * best[n]["identity"] + 0.2 * best[n]["category"] + 0.2 * best[n]["similar"]),
        )
        for place, name in enumerate(ranked[:3]):
            assert got.similarity["similar"][row] == pytest.approx(best[name]["similar"])
            assert got.right[row] == (owner[photo] == name)
            assert got.category[row] == {"a": "x", "b": "y", "c": "x", "d": ""}[name]
            assert got.place[row] == place
            row += 1
    photo_group = got.group[::3].tolist()
    assert len(got) == row
    assert photo_group[0] == photo_group[4]
    assert photo_group[1] == photo_group[5]
    assert len(set(photo_group)) == 5


def shop(
    photos: int, products: int, slopes: dict[str, float], seed: int = 0
) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Similarities whose true curve is known: P(same) = 1 / (1 + exp(-slope * (s - .5))) in each category."""
    rng = np.random.default_rng(seed)
    names = list(slopes)
    category = [names[number % len(names)] for number in range(products)]
    identity = rng.uniform(-0.2, 1.0, (photos, products))
    slope = np.array([slopes[name] for name in category])
    same = rng.random((photos, products)) < 1 / (1 + np.exp(-slope * (identity - 0.5)))
    return {"identity": identity, "similar": identity**2}, same, category


def test_it_finds_the_curves_that_made_the_data(tmp_path: Path) -> None:
    slopes = {"steep": 20.0, "gentle": 5.0}
    similarity, same, category = shop(300, 20, slopes)
    calibration, report = fit_calibration(
        similarity, same, category, embedder_sha256=SHA256, top=20, fitted_on="a test"
    )
    values = np.linspace(0.2, 0.9, 15)
    for name, slope in slopes.items():
        truth = 1 / (1 + np.exp(-slope * (values - 0.5)))
        assert calibration.probability("identity", values, name) == pytest.approx(truth, abs=0.06)
    identity = calibration.spaces["identity"]
    assert identity.everywhere.pairs == 6000
    assert sum(curve.pairs for curve in identity.categories.values()) == 6000
    assert identity.everywhere.right == same.sum()
    assert identity.ece_after < 0.03 < identity.ece_before
    assert report.figures()["held_out"]["identity"]["ece_after"] == identity.ece_after
    calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path, "calibration.json", SHA256) == calibration


def test_a_calibration_is_measured_on_other_photos_as_it_is() -> None:
    slopes = {"steep": 20.0, "gentle": 5.0}
    calibration, _ = fit_calibration(*shop(300, 20, slopes), embedder_sha256=SHA256, top=20)
    alike = measure_calibration(calibration, *shop(300, 20, slopes, seed=1), top=20).figures()
    other = measure_calibration(calibration, *shop(300, 20, {"flat": 1.0}, seed=1), top=20).figures()
    assert alike["held_out"]["identity"]["ece_after"] < 0.03
    assert other["held_out"]["identity"]["ece_after"] > 0.15
    similarity, same, category = shop(50, 20, slopes, seed=2)
    probability = calibration.probability("identity", similarity["identity"].ravel(), category * 50)
    told = measure_calibration(calibration, similarity, same, category, top=20)
    assert told.figures()["held_out"]["identity"]["brier"] == pytest.approx(
        float(np.mean((probability - same.ravel()) ** 2))
    )


def test_a_category_with_few_hits_lies_between_its_own_and_the_curve_of_all() -> None:
    similarity, same, category = shop(300, 20, {"steep": 20.0, "gentle": 5.0})
    category[0], category[2] = "rare", ""
    rows = np.arange(300) >= 12
    for values in similarity.values():
        values[rows, 0] = -1.0  # only twelve photos ever show it
    same[rows, 0] = False
    calibration, _ = fit_calibration(similarity, same, category, embedder_sha256=SHA256, top=19)
    identity = calibration.spaces["identity"]
    assert identity.prior_strength is not None
    assert identity.categories["rare"].pairs < 20
    assert "" not in identity.categories

    def away(name: str) -> float:
        curve = identity.categories[name]
        return abs(curve.slope - identity.everywhere.slope)

    assert away("rare") < away("steep")
    values = np.linspace(0, 1, 5)
    unknown = calibration.probability("identity", values, "never seen")
    assert (unknown == calibration.probability("identity", values, "")).all()


def test_the_figures_are_of_products_that_the_curves_did_not_see() -> None:
    rng = np.random.default_rng(3)
    owner = np.arange(120) % 20
    same = owner[:, None] == np.arange(20)
    similarity = {"identity": rng.uniform(0, 1, (120, 20)) + 0.6 * same}
    _, report = fit_calibration(similarity, same, [""] * 20, embedder_sha256=SHA256, top=5, folds=4, seed=9)
    pairs = hits(similarity, same, [""] * 20, top=5)
    values = pairs.similarity["identity"]
    x = (values - values.mean()) / values.std()
    products = sorted(set(pairs.group.tolist()))
    fold_of = dict(zip(products, np.random.default_rng(9).permutation(20) % 4, strict=True))
    fold = np.array([fold_of[group] for group in pairs.group])
    assert all(len(set(fold[np.repeat(owner, 5) == product])) == 1 for product in range(20))
    for number in range(4):
        slope, intercept = platt.fit(x[fold != number], pairs.right[fold != number])
        expected = 1 / (1 + np.exp(-(slope * x[fold == number] + intercept)))
        assert report.spaces["identity"].held_out.probability[fold == number] == pytest.approx(expected)
    first = report.spaces["identity"].first_hit
    assert (first.similarity == values[::5]).all()


def test_too_few_photos_are_refused() -> None:
    same = np.arange(39)[:, None] % 12 == np.arange(12)
    with pytest.raises(InvalidArgument, match="39 photos of 12 products are too few"):
        fit_calibration({"identity": same * 1.0}, same, [""] * 12, embedder_sha256=SHA256)
    same = np.zeros((60, 12), bool)
    same[:, 0] = True
    with pytest.raises(InvalidArgument, match="60 photos of 1 products are too few"):
        fit_calibration({"identity": same * 1.0}, same, [""] * 12, embedder_sha256=SHA256)


@pytest.mark.parametrize("right", [0, 19])
def test_too_few_right_hits_are_refused(right: int) -> None:
    same = np.zeros((60, 12), bool)
    same[np.arange(right), np.arange(right) % 12] = True
    with pytest.raises(InvalidArgument, match=f"of 600 hits {right} are right: at least 20 right"):
        fit_calibration({"identity": same * 1.0}, same, [""] * 12, embedder_sha256=SHA256)


def test_shapes_that_do_not_fit_are_refused() -> None:
    same = np.zeros((50, 4), bool)
    with pytest.raises(InvalidArgument, match="needs the space `identity`"):
        hits({"similar": np.zeros((50, 4))}, same, [""] * 4, top=3)
    with pytest.raises(InvalidArgument, match=r"`identity` is \(50, 5\)"):
        hits({"identity": np.zeros((50, 5))}, same, [""] * 4, top=3)
    with pytest.raises(InvalidArgument, match="names 3 pictures"):
        hits({"identity": np.zeros((50, 4))}, same, [""] * 4, top=3, product=["a"] * 3)


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_diagram_is_drawn(tmp_path: Path, suffix: str, start: bytes) -> None:
    rng = np.random.default_rng(0)
    similarity = rng.uniform(-0.2, 1, 300)
    pairs = Reliability(similarity, np.clip(similarity, 0, 1), rng.random(300) < similarity)
    draw({"identity": pairs, "similar": pairs}, tmp_path / f"reliability{suffix}")
    assert (tmp_path / f"reliability{suffix}").read_bytes().startswith(start)
