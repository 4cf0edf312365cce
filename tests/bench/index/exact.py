"""The right answers, by comparing every query with every object as float32, and how many were found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

NOBODY = -1


def nearest(
    queries: NDArray[np.float32],
    blocks: Iterable[tuple[int, NDArray[np.float32]]],
    masks: Sequence[NDArray[np.bool_] | None],
    k: int,
) -> NDArray[np.int64]:
    """(masks, Q, k) rows of largest inner product among those that each mask (N,) allows, best first.

    `blocks` are pairs of a first row and the vectors (R, d) from there on. NOBODY fills up where there are
    fewer.
    """
    best = np.full((len(masks), len(queries), k), -np.inf, np.float32)
    found = np.full((len(masks), len(queries), k), NOBODY, np.int64)
    for first, vectors in blocks:
        similarity = queries @ vectors.T  # (Q, R)
        for number, mask in enumerate(masks):
            rows = (
                np.arange(len(vectors))
                if mask is None
                else np.flatnonzero(mask[first : first + len(vectors)])
            )
            if not len(rows):
                continue
            allowed = similarity if len(rows) == len(vectors) else similarity[:, rows]
            for query in np.flatnonzero(allowed.max(axis=1) > best[number, :, -1]):
                better = np.flatnonzero(allowed[query] > best[number, query, -1])
                values = np.concatenate([best[number, query], allowed[query, better]])
                names = np.concatenate([found[number, query], first + rows[better]])
                order = np.argsort(-values, kind="stable")[:k]
                best[number, query], found[number, query] = values[order], names[order]
    return found


def recall(answer: NDArray[np.int64], exact: NDArray[np.int64]) -> float | None:
    """Share of the exact answer (k,) that is in `answer`; None where there is nothing to find."""
    right = exact[exact != NOBODY]
    return float(np.isin(right, answer).mean()) if len(right) else None
