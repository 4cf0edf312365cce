"""What an evaluation yields: a number a query, so that two models can be compared query by query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PerQuery = NDArray[np.float64]  # (Q,)


@dataclass(frozen=True)
class SetResult:
    """One evaluation set, one model, one space, one condition."""

    name: str  # of the evaluation set
    queries: tuple[str, ...]  # (Q,) names of the query pictures, the same for every model
    metrics: Mapping[str, PerQuery]  # `recall@1`, `ndcg@10`, `mrr`, `map@r` ... -> (Q,)
    groups: Mapping[str, tuple[str, ...]]  # `category`, `seen` ... -> (Q,) what the query belongs to

    def mean(self, metric: str) -> float:
        """Over all queries."""
        return float(np.mean(self.metrics[metric]))
