"""The port that every search engine has. `tests/contract/test_engine.py` holds them all to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from magpie.index.filter_terms import Filter
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import Candidate

Query = Mapping[str, NDArray[np.float32]]  # space -> (dimension,), unit norm; every space of the bundle


class Engine(Protocol):
    """Nearest neighbours in one customer's index of one bundle."""

    def find(
        self,
        customer: str,
        bundle: str,
        queries: Sequence[Query],
        condition: Filter | None,
        limit_per_space: int,
    ) -> tuple[list[list[Candidate]], list[Product]]:
        """Candidates of each query, and every product that they name, once.

        A query's candidates are the union, over the spaces, of its `limit_per_space` nearest objects among
        those whose product the condition holds for, each with its cosine in all spaces. Every write that
        returned before the call is seen. The messages may be shared with later answers: do not change them.

        Raises InvalidArgument if a query's spaces, dimensions or values are no good, FailedPrecondition if
        the customer's objects are all of other bundles, Unavailable while the index cannot be read.
        """
