"""Near-duplicate removal: of products that look the same, the best ranked stays and stands for the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def representatives(
    identity: NDArray[np.float32], order: Sequence[int], threshold: float
) -> dict[int, list[int]]:
    """Greedy, best first: kept row -> the rows that it stands for.

    `identity` (N, d) unit norm; `order` the rows, best first. A row joins the first kept row whose cosine
    similarity to it is at least `threshold`.
    """
    rank = np.asarray(order, np.intp)
    similar = identity[rank] @ identity[rank].T >= threshold  # (n, n), in ranking order
    kept: dict[int, list[int]] = {}
    free = np.ones(len(rank), bool)
    for place, row in enumerate(rank):
        if not free[place]:
            continue
        joined = similar[place] & free
        joined[: place + 1] = False
        free[joined] = False
        kept[int(row)] = [int(other) for other in rank[joined]]
    return kept
