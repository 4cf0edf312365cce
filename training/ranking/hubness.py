"""References against hubness, and how much of it known products can bear (`magpie.ranking.hubness`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from magpie.errors import InvalidArgument
from magpie.ranking.hubness import Hubness
from training.datasets.example import Example
from training.embedding.retrieval import Vectors

REFERENCES = 512  # photos, at most: a millisecond for the candidates of a query
NEAREST = 8  # of them count
STRENGTHS = (0.75, 0.5, 0.25)  # that are tried


def fit_hubness(
    train: Sequence[Example],
    learnt: Vectors,
    development: Sequence[Example],
    held_out: Vectors,
    *,
    embedder_sha256: str,
    cost: float,
    seed: int = 0,
) -> tuple[Hubness, dict[str, Any]]:
    """References out of the training photos, the largest strength that is within `cost`; with its report.

    `learnt` (N, D) and `held_out` (M, D) are the vectors in `identity` of the training pictures and of the
    development photos. `cost` is how much of their recall@1 the latter may lose: they show products that
    training knows, and hubness helps those that it does not know. Raises InvalidArgument if there are too few
    pictures, or no strength is within it.
    """
    photos = references(train, seed)
    shelf = [row for row, example in enumerate(train) if example.catalogue and example.product is not None]
    asked = [row for row, example in enumerate(development) if example.product is not None]
    if len(photos) < NEAREST or not shelf or not asked:
        raise InvalidArgument(
            "hubness",
            f"needs {NEAREST} training photos of products, catalogue pictures, and development photos",
        )
    catalogue, queries = learnt[shelf], held_out[asked]
    wanted = np.array([development[row].product_name for row in asked])
    names = np.array([train[row].product_name for row in shelf])
    unit = Hubness(embedder_sha256, learnt[photos], NEAREST, 1.0, usual=0.0)
    nearness, cosines = unit.nearness(catalogue), queries @ catalogue.T
    figures = {
        strength: float(np.mean(names[(cosines - strength * nearness).argmax(axis=1)] == wanted))
        for strength in (0.0, *STRENGTHS)
    }
    borne = [strength for strength in STRENGTHS if figures[strength] >= figures[0.0] - cost]
    if not borne:
        raise InvalidArgument(
            "hubness", f"even strength {STRENGTHS[-1]} costs known products more than {cost} of recall@1"
        )
    hubness = Hubness(embedder_sha256, learnt[photos], NEAREST, borne[0], usual=float(nearness.mean()))
    return hubness, {
        "strength": borne[0],
        "references": len(photos),
        "recall@1 of known products by strength": {str(key): value for key, value in figures.items()},
    }


def references(train: Sequence[Example], seed: int) -> list[int]:
    """Rows of photos of products, REFERENCES at most: of all data sets and products as evenly as may be."""
    rng = np.random.default_rng(seed)
    photos: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rng.permutation(len(train)).tolist():
        example = train[row]
        if example.product is not None and not example.catalogue:
            photos[example.dataset][example.product].append(row)
    return _in_turn([_in_turn(list(photos[name].values())) for name in sorted(photos)])[:REFERENCES]


def _in_turn(lists: Sequence[Sequence[int]]) -> list[int]:
    """The first of each, then the second of each, and so on."""
    return [row for row in chain.from_iterable(zip_longest(*lists)) if row is not None]
