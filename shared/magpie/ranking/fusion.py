"""Fusion of the spaces: many similarities of a candidate become one score.

Both rules return one share a space, (N, S), whose row sums are the scores, so that every score can be
explained term by term.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Similarities = NDArray[np.float64]  # (N candidates, S spaces), cosine
Shares = NDArray[np.float64]  # (N, S)


def weighted(similarities: Similarities, weights: NDArray[np.float64]) -> Shares:
    """Weighted mean of the cosines. `weights` (S,) sum to 1; the scores lie in [-1, 1]."""
    return similarities * weights


def reciprocal_rank(
    similarities: Similarities, products: NDArray[np.intp], weights: NDArray[np.float64], k: float
) -> Shares:
    """Reciprocal rank fusion (Cormack, Clarke, Buettcher 2009), scaled: rank 1 in every space scores 1.

    `products` (N,) numbers the product of each candidate: products are ranked, by their best object in each
    space, so that a product with many pictures does not push the others down.
    """
    shares = np.empty_like(similarities)
    for space in range(similarities.shape[1]):
        shares[:, space] = weights[space] * (k + 1) / (k + _ranks(similarities[:, space], products))
    return shares


def _ranks(similarity: NDArray[np.float64], products: NDArray[np.intp]) -> NDArray[np.float64]:
    """1 + how many other products have an object that is more similar. (N,) -> (N,)"""
    best = np.full(products.max(initial=-1) + 1, -np.inf)
    np.maximum.at(best, products, similarity)
    ahead = len(best) - np.searchsorted(np.sort(best), similarity, side="right")
    itself = best[products] > similarity  # the product's own better object is no rival
    return np.asarray(1 + ahead - itself, np.float64)
