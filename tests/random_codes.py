"""A hash model that was fitted to nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from magpie.index.hash_model import Coder, HashModel

BITS = 64  # a space


def random_codes(dimensions: Mapping[str, int]) -> HashModel:
    """Random projections of each space (Charikar 2002), the same ones each time."""
    rng = np.random.default_rng(0)
    return HashModel(
        {
            space: Coder(
                "random",
                (rng.standard_normal((dimension, BITS)).astype(np.float32),),
                (np.zeros(BITS, np.float32),),
            )
            for space, dimension in dimensions.items()
        }
    )
