"""A collection as large as a big shop's, grown from a small real one, to measure search on.

Each new vector lies between a real one and one of its real neighbours, plus noise with the covariance of the
differences between neighbours, of `NOISE` times their length. So it is clustered as the real ones are, and
denser: its neighbours are nearer to each other and harder to tell apart than those of as many real products.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 10
NOISE = 0.5
_ROWS_AT_ONCE = 1024  # bounds the memory of their similarities


def grown(vectors: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """(N, d) -> (count, d), unit norm, the real ones first. With `count` <= N: the first `count` of them."""
    if count <= len(vectors) or len(vectors) < 2:
        return vectors[:count]
    rng = np.random.default_rng(seed)
    neighbours = _neighbours(vectors, min(NEIGHBOURS, len(vectors) - 1))  # (N, K)
    difference = (vectors[neighbours] - vectors[:, None]).reshape(-1, vectors.shape[1])
    values, directions = np.linalg.eigh((difference.T @ difference).astype(np.float64) / len(difference))
    spread = (directions * np.sqrt(np.maximum(values, 0))).T.astype(np.float32)  # (d, d): noise @ spread
    number = count - len(vectors)
    first = rng.integers(0, len(vectors), number)
    second = neighbours[first, rng.integers(0, neighbours.shape[1], number)]
    share = rng.random((number, 1), np.float32)
    noise = rng.standard_normal((number, vectors.shape[1]), np.float32) @ spread
    new = vectors[first] + share * (vectors[second] - vectors[first]) + NOISE * noise
    new /= np.maximum(np.linalg.norm(new, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.concatenate([vectors, new])


def _neighbours(vectors: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    rows = []
    for first in range(0, len(vectors), _ROWS_AT_ONCE):
        similarity = vectors[first : first + _ROWS_AT_ONCE] @ vectors.T
        similarity[np.arange(len(similarity)), np.arange(first, first + len(similarity))] = -np.inf
        rows.append(np.argpartition(-similarity, count - 1, axis=1)[:, :count])
    return np.concatenate(rows)
