"""Iterative quantisation: the rotation after which the vectors lie nearest to the corners of a cube.

Gong and Lazebnik, CVPR 2011; PAMI 2013. Minimises |B - V R|^2 over codes B in {-1, 1} and rotations R, each
in turn: B = sign(V R), then R by the SVD of V^T B (orthogonal Procrustes). Neither step can raise the error.

With fewer bits than dimensions V holds the first principal components. With more, V is padded with zeros to
`bits` columns; of R only the rows that meet the data count, a tight frame (see tight_frame.py) that is fitted
instead of drawn. The vectors are centred, so each bit halves the data.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from magpie.index.hash_model import Coder
from training.hashing.tight_frame import tight_frame

METHOD = "itq"
ITERATIONS = 50  # as in the paper
LARGEST_SAMPLE = 20_000  # vectors that are fitted to; more change nothing but the time

Matrix = NDArray[np.float64]


def fit(vectors: NDArray[np.float32], bits: int, seed: int, *, centre: bool = True) -> Coder:
    """A coder for vectors (N, d). Without `centre` it takes them as they lie."""
    rng = np.random.default_rng(seed)
    if len(vectors) > LARGEST_SAMPLE:
        vectors = vectors[rng.choice(len(vectors), LARGEST_SAMPLE, replace=False)]
    mean = vectors.mean(axis=0, dtype=np.float64) * centre
    centred = vectors - mean  # (N, d)
    components = principal_components(centred, bits)  # (d, c)
    projected = centred @ components  # (N, c)
    start = tight_frame(components.shape[1], bits, rng)
    *_, rotation = alternation(projected, start, ITERATIONS)
    weight = components @ rotation  # (d, bits)
    return Coder(METHOD, (weight.astype(np.float32),), ((-mean @ weight).astype(np.float32),))


def principal_components(centred: Matrix, most: int) -> Matrix:
    """(N, d) -> (d, min(d, most)), the directions of largest variance; all of them: as they lie."""
    dimension = centred.shape[1]
    if most >= dimension:
        return np.eye(dimension)
    _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    return np.ascontiguousarray(directions[:, ::-1][:, :most])


def alternation(projected: Matrix, rotation: Matrix, iterations: int) -> Iterator[Matrix]:
    """(N, c), (c, bits) -> the rotation (c, bits) after each iteration."""
    for _ in range(iterations):
        codes = _signs(projected @ rotation)  # (N, bits)
        left, _, right = np.linalg.svd(projected.T @ codes, full_matrices=False)
        rotation = left @ right
        yield rotation


def quantisation_error(projected: Matrix, rotation: Matrix) -> float:
    """|B - V R|^2 / N with B = sign(V R)."""
    outputs = projected @ rotation
    return float(((_signs(outputs) - outputs) ** 2).sum() / len(outputs))


def _signs(outputs: Matrix) -> Matrix:
    """As the coder has them: 0 counts as below."""
    return np.where(outputs > 0, 1.0, -1.0)
