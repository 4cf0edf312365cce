"""The port that every search engine has. `tests/contract/test_engine.py` holds them all to it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.index.filter_terms import Filter
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import Candidate

Query = Mapping[str, NDArray[np.float32]]  # space -> (dimension,), unit norm; every space of the bundle


IDENTITY = "identity"  # the space whose vectors travel with candidates, to tell near-duplicates
Weights = Mapping[str, float]  # space -> its share of the fused similarity, at least 0, not all 0
Shares = Mapping[str, float]  # every space -> its share; they add up to 1


@dataclass(frozen=True)
class Found:
    """What a search finds. The messages may be shared with later answers: do not change them."""

    results: list[list[Candidate]]  # of each query
    products: list[Product]  # every product that they name, once
    stale: bool = False  # the catalogue could not be asked for the newest writes: they may be missing


class Engine(Protocol):
    """Nearest neighbours in one customer's index of one bundle."""

    def find(
        self,
        customer: str,
        bundle: str,
        queries: Sequence[Query],
        condition: Filter | None,
        limit: int,
        weights: Weights | None = None,
    ) -> Found:
        """Candidates of each query among the objects whose product the condition holds for.

        With `weights` they are the `limit` objects with the largest weighted mean of the cosines; without,
        the union of the `limit` nearest in each space. Each has its cosine in all spaces. Every write that
        returned before the call is seen, unless the answer says that it is stale.

        Raises InvalidArgument if a query's spaces, dimensions or values are no good, or a weight names no
        space of the index; FailedPrecondition if the customer's objects are all of other bundles;
        Unavailable while the index cannot be read.
        """


def ways_of(weights: Weights | None, spaces: Collection[str]) -> list[Shares]:
    """What a search takes the nearest by: the weighted mean of all spaces, or each space by itself.

    Raises InvalidArgument unless the weights are of these spaces, finite, at least 0, and not all 0.
    """
    if weights is None:
        return [{space: float(space == alone) for space in spaces} for alone in spaces]
    for space, weight in weights.items():
        if space not in spaces:
            raise InvalidArgument(f"weights['{space}']", f"the index has the spaces {', '.join(spaces)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise InvalidArgument(f"weights['{space}']", f"must be finite and at least 0, got {weight}")
    total = sum(weights.values())
    if not total > 0:
        raise InvalidArgument("weights", "at least one must be greater than 0")
    return [{space: weights.get(space, 0.0) / total for space in spaces}]


def check_queries(queries: Sequence[Query], dimensions: Mapping[str, int]) -> None:
    """Raises InvalidArgument, naming the query, unless all have these dimensions and are finite."""
    for row, query in enumerate(queries):
        sizes = {space: len(vector) for space, vector in query.items()}
        if sizes != dimensions:
            raise InvalidArgument(
                f"queries[{row}].vectors", f"the index has the dimensions {dict(dimensions)}, got {sizes}"
            )
        for space, vector in query.items():
            if not np.isfinite(vector).all():
                raise InvalidArgument(f"queries[{row}].vectors", f"values in {space} are not finite")


def refuse_other_bundles(bundle: str, known: Collection[str]) -> None:
    """Raises FailedPrecondition if a customer's objects, of the `known` bundles, are all of other ones."""
    if known and bundle not in known:
        raise FailedPrecondition(
            f"bundle: the index has objects of {', '.join(sorted(known))}, none of {bundle}: index again"
        )
