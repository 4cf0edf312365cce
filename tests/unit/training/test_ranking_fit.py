"""A customer's weights and cut-off, against naive loops and serving's own ranking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie.errors import InvalidArgument
from magpie.evaluation.retrieval import ndcg_at_k
from magpie.ranking.calibration import Calibration, Curve, SpaceCalibration
from magpie.ranking.config import validate
from magpie.ranking.hubness import Hubness
from magpie.ranking.rank import rank
from magpie.tables.problems import BadFile
from magpie.v1.product_pb2 import Product
from magpie.v1.ranking_config_pb2 import Boost, Fusion, RankingConfig
from magpie.v1.search_pb2 import Candidate
from training.ranking.cut_off import MIN_HITS, Shown, cut_off
from training.ranking.fit import default_weights, fit_ranking
from training.ranking.fusion_weights import fit_weights, simplex
from training.ranking.graded import Candidates, candidates_of, read_graded
from training.ranking.serving_path import PictureVectors, product_similarities

SPACES = ("identity", "category", "similar")
DEFAULT = default_weights(SPACES)
seeds = st.integers(0, 2**32 - 1)


def random_candidates(rng: np.random.Generator, n: int, products: int) -> Candidates:
    grades = {int(p): float(g) for p, g in zip(rng.permutation(products)[:3], (1, 2, 3), strict=True)}
    return Candidates(rng.uniform(-1, 1, (n, 3)), rng.integers(0, products, n), grades)


@settings(max_examples=50)
@given(seeds, st.integers(1, 40), st.integers(3, 30))
def test_rankings_are_servings(seed: int, n: int, products: int) -> None:
    rng = np.random.default_rng(seed)
    query = random_candidates(rng, n, products)
    weights = np.vstack([DEFAULT, rng.dirichlet(np.ones(3), 4)])
    ids = [f"p{number:02d}" for number in range(products)]
    served = [
        Candidate(product_id=ids[p], similarity=dict(zip(SPACES, row, strict=True)))
        for p, row in zip(query.product, query.similarity.astype(np.float32).tolist(), strict=True)
    ]
    query = Candidates(query.similarity.astype(np.float32).astype(np.float64), query.product, query.grades)
    for row, ndcg in zip(weights, query.ndcg(weights), strict=True):
        config = validate(RankingConfig(fusion=Fusion(weights=dict(zip(SPACES, row, strict=True)))), SPACES)
        hits = rank(config, served, {id_: Product(id=id_) for id_ in ids}, 10)
        ranking, scores = query.ranking(row)
        assert [ids[p] for p in ranking] == [hit.product_id for hit in hits]
        assert scores == pytest.approx([hit.score for hit in hits])
        grades = {ids[p]: grade for p, grade in query.grades.items()}
        assert ndcg == pytest.approx(ndcg_at_k([hit.product_id for hit in hits], grades, 10))


@pytest.mark.parametrize("spaces", [1, 2, 3, 4, 6])
def test_the_grid_is_the_simplex(spaces: int) -> None:
    grid = simplex(spaces, np.full(spaces, 1 / spaces))
    assert grid.sum(axis=1) == pytest.approx(np.ones(len(grid)))
    assert (grid >= 0).all()
    assert len(grid) <= 1001
    assert len({tuple(row) for row in np.round(grid[1:], 6).tolist()}) == len(grid) - 1
    if spaces == 3:
        assert len(grid) == 1 + 231
        assert (np.abs(grid[1:] - [0.05, 0.9, 0.05]).max(axis=1) < 1e-9).sum() == 1


def queries_of(good: int, count: int = 60, seed: int = 0, noise: float = 0.3) -> list[Candidates]:
    """Queries whose right product is most similar in one space; the others are noise."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        similarity = rng.uniform(0, 1, (20, 3))
        similarity[:, good] = rng.uniform(0, noise, 20)
        similarity[number % 12, good] = 1.0
        found.append(Candidates(similarity, np.arange(20), {number % 12: 1.0}))
    return found


def test_weights_move_to_the_space_that_knows() -> None:
    fit = fit_weights(queries_of(good=1), DEFAULT)
    assert fit.better
    assert fit.weights[1] > DEFAULT[1] + 0.2
    assert fit.held_out_ndcg.mean() > fit.default_ndcg.mean() + 0.1
    for number, weights in enumerate(fit.fold_weights):
        rows = np.flatnonzero(fit.fold == number)
        own = [queries_of(good=1)[row].ndcg(weights[None])[0] for row in rows]
        assert fit.held_out_ndcg[rows] == pytest.approx(own)
    products = np.arange(60) % 12
    assert all(len(set(fit.fold[products == product])) == 1 for product in range(12))


def test_the_default_stays_where_nothing_is_better() -> None:
    perfect = fit_weights(queries_of(good=0, noise=0.05), np.array([1.0, 0.0, 0.0]))
    assert not perfect.better
    assert perfect.weights.tolist() == [1, 0, 0]
    assert perfect.fitted.tolist() == [1, 0, 0]  # of equals the default
    rng = np.random.default_rng(1)
    noise = [Candidates(rng.uniform(0, 1, (20, 3)), np.arange(20), {n % 12: 1.0}) for n in range(60)]
    fit = fit_weights(noise, DEFAULT)
    assert fit.better == (fit.gain[0] > fit.gain[1])
    if not fit.better:
        assert fit.weights == pytest.approx(DEFAULT)


def test_too_few_queries_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"29 graded photos of 12 products are too few.*at least 30"):
        fit_weights(queries_of(0, 29), DEFAULT)
    same = [Candidates(query.similarity, query.product, {3: 1.0}) for query in queries_of(0)]
    with pytest.raises(InvalidArgument, match="60 graded photos of 1 products"):
        fit_weights(same, DEFAULT)


@settings(max_examples=50)
@given(seeds, st.integers(1, 80), st.floats(0.05, 1), st.integers(1, 12))
def test_the_cut_off_equals_the_naive_search(seed: int, n: int, precision: float, levels: int) -> None:
    rng = np.random.default_rng(seed)
    value = rng.integers(0, levels + 1, n) / levels  # many ties
    shown = Shown(value, rng.random(n) < value, rng.integers(0, 9, n), rng.integers(0, 3, n))

    def naive(rows: np.ndarray) -> float | None:
        good = []
        for candidate in sorted(set(value[rows].tolist())):
            kept = rows & (value >= candidate)
            if kept.sum() >= MIN_HITS and shown.right[kept].sum() / kept.sum() >= precision:
                good.append(candidate)
        return min(good) if good else None

    everything = np.ones(n, bool)
    expected = naive(everything)
    got = cut_off(shown, precision, queries=9)
    assert got.value == expected
    kept = value >= (9 if expected is None else expected)
    assert got.shown == kept.sum()
    assert got.coverage == pytest.approx(len(set(shown.query[kept].tolist())) / 9)
    if expected is not None:
        assert got.precision == pytest.approx(shown.right[kept].mean())
        assert got.precision >= precision
    held_out = []
    for fold in range(3):
        own = naive(shown.fold != fold)
        if own is not None:
            held_out += shown.right[(shown.fold == fold) & (value >= own)].tolist()
    assert got.held_out_precision == pytest.approx(float(np.mean(held_out)) if held_out else 0.0)


CURVES = Calibration(
    "0" * 64,
    {"identity": SpaceCalibration(Curve(6.0, -3.0, 9, 3), {"Tea": Curve(2.0, 0.0, 9, 3)}, 1.0, 0.2, 0.1)},
)


@pytest.mark.parametrize("calibration", [None, CURVES], ids=["score", "probability"])
def test_what_the_cut_off_promises_is_what_serving_shows(calibration: Calibration | None) -> None:
    queries = queries_of(good=0, noise=0.9, count=80)
    categories = ["Tea" if number % 2 else "" for number in range(20)]
    base = RankingConfig(filter="id != ''", boosts=[Boost(filter="price < 3", weight=0.5)], min_score=0.7)
    fit = fit_ranking(queries, SPACES, categories, base=base, calibration=calibration, precision=0.5)
    assert fit.cut_off is not None
    assert fit.cut_off.value is not None
    assert fit.config.HasField("min_probability") == (calibration is not None)
    assert fit.config.HasField("min_score") == (calibration is None)
    assert (fit.config.filter, len(fit.config.boosts)) == ("id != ''", 1)
    config = validate(fit.config, SPACES, calibrated=calibration is not None)
    products = {f"p{n:02d}": Product(id=f"p{n:02d}", category=categories[n]) for n in range(20)}
    shown, right = 0, 0
    for query in queries:
        served = [
            Candidate(product_id=f"p{p:02d}", similarity=dict(zip(SPACES, row, strict=True)))
            for p, row in zip(query.product, query.similarity.tolist(), strict=True)
        ]
        for hit in rank(config, served, products, 10, calibration=calibration):
            shown += 1
            right += int(hit.product_id[1:]) in query.grades
    assert abs(shown - fit.cut_off.shown) <= 1  # similarities travel as float32
    assert right / shown == pytest.approx(fit.cut_off.precision, abs=0.01)


def test_a_precision_out_of_reach_leaves_no_cut_off() -> None:
    rng = np.random.default_rng(0)
    noise = [Candidates(rng.uniform(0, 1, (20, 3)), np.arange(20), {n % 12: 1.0}) for n in range(60)]
    fit = fit_ranking(noise, SPACES, [""] * 20, base=RankingConfig(min_probability=0.2), precision=0.99)
    assert fit.cut_off is not None
    assert fit.cut_off.value is None
    assert fit.cut_off.best_precision < 0.99
    assert not fit.config.HasField("min_score")
    assert not fit.config.HasField("min_probability")
    assert fit.figures()["cut_off"]["value"] is None


def test_without_a_precision_the_cut_off_by_probability_stays() -> None:
    base = RankingConfig(min_probability=0.2, min_score=0.4)
    fit = fit_ranking(queries_of(0), SPACES, [""] * 20, base=base, calibration=CURVES)
    assert fit.config.min_probability == 0.2
    assert not fit.config.HasField("min_score")


def unit_vectors(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some_pictures(rng: np.random.Generator, objects: list[int]) -> PictureVectors:
    picture = np.repeat(np.arange(len(objects)), objects)
    return PictureVectors(picture, {s: unit_vectors(rng, len(picture), 8) for s in SPACES})


def test_candidates_are_the_nearest_in_every_space() -> None:
    rng = np.random.default_rng(5)
    photos, shelf = some_pictures(rng, [1, 3]), some_pictures(rng, [2] * 130)
    product = np.arange(130) // 2
    first, second = candidates_of(photos, shelf, product, [{0: 1.0}, {1: 2.0}], SPACES)
    assert (first.grades, second.grades) == ({0: 1.0}, {1: 2.0})
    cosines = np.stack([photos.vectors[s] @ shelf.vectors[s].T for s in SPACES], axis=2)
    near = {int(o) for s in range(3) for o in np.argsort(-cosines[0, :, s])[:100]}
    expected = sorted((int(product[o // 2]), *cosines[0, o].tolist()) for o in near)
    got = sorted((int(p), *row) for p, row in zip(first.product, first.similarity.tolist(), strict=True))
    assert [row[0] for row in got] == [row[0] for row in expected]
    assert np.array(got) == pytest.approx(np.array(expected), abs=1e-6)
    assert 300 <= len(second.product) <= 900


def test_hubness_is_servings() -> None:
    rng = np.random.default_rng(7)
    photos, shelf = some_pictures(rng, [2]), some_pictures(rng, [1] * 20)
    hubness = Hubness("a" * 64, unit_vectors(rng, 30, 8), 4, 0.75, 0.2)
    (query,) = candidates_of(photos, shelf, np.arange(20), [{3: 1.0}], SPACES, hubness)
    (plain,) = candidates_of(photos, shelf, np.arange(20), [{3: 1.0}], SPACES)
    ids = [f"p{number:02d}" for number in range(20)]
    served = [
        Candidate(
            product_id=ids[o],
            similarity={s: float(photos.vectors[s][i] @ shelf.vectors[s][o]) for s in SPACES},
            identity=shelf.vectors["identity"][o].tobytes(),
        )
        for i in range(2)
        for o in range(20)
    ]
    config = validate(RankingConfig(fusion=Fusion(weights=dict(zip(SPACES, DEFAULT, strict=True)))), SPACES)
    hits = rank(config, served, {id_: Product(id=id_) for id_ in ids}, 10, hubness=hubness)
    ranking, scores = query.ranking(DEFAULT)
    assert [ids[p] for p in ranking] == [hit.product_id for hit in hits]
    assert scores == pytest.approx([hit.score for hit in hits], abs=1e-6)
    assert plain.ranking(DEFAULT)[0].tolist() != ranking.tolist()
    assert query.ndcg(DEFAULT[None])[0] == pytest.approx(
        ndcg_at_k([hit.product_id for hit in hits], {ids[3]: 1.0}, 10)
    )


def test_similarity_of_products_is_the_best_over_objects() -> None:
    rng = np.random.default_rng(6)
    photos, shelf = some_pictures(rng, [1, 3, 2]), some_pictures(rng, [2, 1, 3, 1])
    product = np.array([1, 0, 1, 2])
    got = product_similarities(photos, shelf, product)
    for space in SPACES:
        for q in range(3):
            for p in range(3):
                best = max(
                    float(photos.vectors[space][i] @ shelf.vectors[space][o])
                    for i in np.flatnonzero(photos.picture == q)
                    for o in np.flatnonzero(product[shelf.picture] == p)
                )
                assert got[space][q, p] == pytest.approx(best, abs=1e-6)


def test_unknown_products_are_told_with_their_lines(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    graded = tmp_path / "graded.csv"
    graded.write_text("image,product_id,grade\na.jpg,p1,2\na.jpg,p9,0\nb.jpg,p8,1\n")
    with pytest.raises(BadFile) as refused:
        read_graded(graded, {"p1"})
    assert [(problem.line, problem.text) for problem in refused.value.problems] == [
        (3, "product `p9` is not in the catalogue"),
        (4, "product `p8` is not in the catalogue"),
    ]
    assert len(read_graded(graded, {"p1", "p8", "p9"})) == 2
