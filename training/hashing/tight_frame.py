"""Codes without learning: the signs of a vector's products with a random tight frame.

A tight frame is `bits` directions in d dimensions whose projections together keep every length: F F^T = I for
F (d, bits). With more bits than dimensions that is far better than as many independent random directions
(Jegou, Furon, Fuchs 2012, arXiv 1110.3767). Nothing is fitted, so goods unlike any seen before lose nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from magpie.index.hash_model import Coder

METHOD = "tight-frame"


def tight_frame(dimension: int, bits: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(d, bits): orthonormal rows, or orthonormal columns where there are fewer bits than dimensions."""
    longer = max(dimension, bits)
    rotation, upper = np.linalg.qr(rng.normal(size=(longer, longer)))
    rotation *= np.sign(np.diag(upper))  # so that all rotations are equally likely
    return rotation[:dimension, :bits]


def fit(vectors: NDArray[np.float32], bits: int, seed: int) -> Coder:
    """A coder for vectors (N, d), of which it takes d alone."""
    frame = tight_frame(vectors.shape[1], bits, np.random.default_rng(seed))
    return Coder(METHOD, (frame.astype(np.float32),), (np.zeros(bits, np.float32),))
