"""The vectors that indexes are measured with: the same for everybody, and as those of real photos are."""

from __future__ import annotations

import numpy as np
import pytest

from magpie.ranking.config import DEFAULT_WEIGHTS
from tests.bench.index.clustered_vectors import OBJECTS, PRODUCTS_AT_ONCE, Shop, Vectors
from tests.bench.index.collection import fused

PHOTOS = 6906  # whose vectors the generator is made after

# Cosines of those photos' fused vectors to the 1st, 10th, 100th and 1000th neighbour: percentiles 10, 50, 90.
REAL_NEIGHBOURS = ((0.820, 0.930, 0.979), (0.735, 0.870, 0.942), (0.517, 0.668, 0.828), (0.228, 0.327, 0.515))
REAL_SPECTRUM = {1: 0.149, 8: 0.024, 32: 0.0087}  # share of the variance along the 1st, 8th, 32nd direction
REAL_IN_COMMON = {"category": 0.735, "similar": 0.772}  # of the 10 nearest by identity


def made(products: int, seed: int = 0) -> dict[str, Vectors]:
    chunks = list(Shop(products, seed).objects())
    return {space: np.concatenate([chunk[space] for chunk in chunks]) for space in chunks[0]}


def similarities(vectors: Vectors, rows: np.ndarray) -> np.ndarray:
    """To all others: (R, N), -1 to itself."""
    similarity = vectors[rows] @ vectors.T
    similarity[np.arange(len(rows)), rows] = -1
    return similarity


@pytest.fixture(scope="module")
def shop() -> dict[str, Vectors]:
    return made(PHOTOS // OBJECTS)


@pytest.fixture(scope="module")
def asked() -> np.ndarray:
    return np.random.default_rng(0).choice(PHOTOS // OBJECTS * OBJECTS, 500, replace=False)


def test_the_same_seed_makes_the_same_vectors() -> None:
    first, again, other = made(300), made(300), made(300, seed=1)
    for space in DEFAULT_WEIGHTS:
        assert np.array_equal(first[space], again[space])
        assert not np.allclose(first[space], other[space])


def test_vectors_have_unit_norm_and_the_dimensions_of_the_default_bundle() -> None:
    vectors = made(PRODUCTS_AT_ONCE + 5)  # more than one chunk
    assert {space: v.shape for space, v in vectors.items()} == {
        "identity": (OBJECTS * (PRODUCTS_AT_ONCE + 5), 128),
        "category": (OBJECTS * (PRODUCTS_AT_ONCE + 5), 64),
        "similar": (OBJECTS * (PRODUCTS_AT_ONCE + 5), 64),
    }
    for matrix in vectors.values():
        np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)


def test_neighbours_are_as_near_as_those_of_photos(shop: dict[str, Vectors], asked: np.ndarray) -> None:
    similarity = -np.sort(-similarities(fused(shop), asked), axis=1)
    for place, real in zip((1, 10, 100, 1000), REAL_NEIGHBOURS, strict=True):
        percentiles = np.quantile(similarity[:, place - 1], (0.1, 0.5, 0.9))
        np.testing.assert_allclose(
            percentiles, real, atol=0.12 if place == 1000 else 0.08, err_msg=str(place)
        )


def test_the_spectrum_falls_as_that_of_photos(shop: dict[str, Vectors]) -> None:
    values = np.linalg.eigvalsh(np.cov(fused(shop).T))[::-1]
    shares = values / values.sum()
    for place, real in REAL_SPECTRUM.items():
        assert real / 1.6 < shares[place - 1] < 1.6 * real


def test_spaces_agree_about_neighbours_as_far_as_for_photos(
    shop: dict[str, Vectors], asked: np.ndarray
) -> None:
    nearest = {space: np.argsort(-similarities(v, asked), axis=1)[:, :10] for space, v in shop.items()}
    for space, real in REAL_IN_COMMON.items():
        common = [
            len(np.intersect1d(a, b)) / 10 for a, b in zip(nearest["identity"], nearest[space], strict=True)
        ]
        assert np.mean(common) == pytest.approx(real, abs=0.1)


def test_queries_are_new_pictures_near_their_products_or_of_products_that_are_not_there() -> None:
    shop = Shop(PRODUCTS_AT_ONCE + 500, 0)
    vectors = fused(made(shop.products))
    queries, shown = shop.queries(400, 0.25)
    similarity = fused(queries) @ vectors.T
    known = shown >= 0
    assert 60 <= np.count_nonzero(~known) <= 140
    assert shown.max() >= PRODUCTS_AT_ONCE  # also of the second chunk
    assert similarity.max() < 0.9999  # none is a picture of the shop
    own = similarity.reshape(len(shown), -1, OBJECTS).max(axis=2)[known, shown[known]]
    assert np.mean(own >= np.sort(similarity[known], axis=1)[:, -10]) > 0.7  # mostly among the ten nearest
    assert np.median(similarity[known].max(axis=1)) > np.median(similarity[~known].max(axis=1))


def test_a_shop_without_products_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a product"):
        Shop(0, 0)
