"""The pairs that a calibration is fitted on: a photo, and a product that search would show for it.

A probability is of "this hit is right", so the pairs are hits: of every photo the first `top` products by
the default fusion of the spaces, right and wrong together, as often as search shows them. All pairs of a
photo and the catalogue would be nearly all wrong and easily told; as many wrong as right ones would have
another share of right ones than search has, and every probability would be off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magpie.errors import InvalidArgument
from magpie.ranking.calibration import HIT_SPACE
from magpie.ranking.config import DEFAULT_WEIGHTS

Similarity = NDArray[np.floating]  # (Q, G), cosine


@dataclass(frozen=True, eq=False)
class Pairs:
    """N = Q * K pairs, photo after photo, the best hit first."""

    similarity: dict[str, NDArray[np.float64]]  # space -> (N,)
    right: NDArray[np.bool_]  # (N,)
    category: NDArray[np.str_]  # (N,) of the product
    group: NDArray[np.intp]  # (N,) photos of the same product have the same number
    place: NDArray[np.intp]  # (N,) from 0

    def __len__(self) -> int:
        return len(self.right)


def hits(
    similarity: Mapping[str, Similarity],
    same: NDArray[np.bool_],
    category: Sequence[str],
    *,
    top: int,
    product: Sequence[str] | None = None,
) -> Pairs:
    """The first `top` products of each of Q photos.

    `same` (Q, G) says which are right; `category` (G,). Where the columns are pictures, `product` (G,) names
    the product of each: a product is as similar as its most similar picture. Raises InvalidArgument if the
    shapes do not fit or `identity` is not there.
    """
    if HIT_SPACE not in similarity:
        raise InvalidArgument("similarity", f"needs the space `{HIT_SPACE}`, has {', '.join(similarity)}")
    for name, values in similarity.items():
        if values.shape != same.shape or same.shape[1] != len(category):
            raise InvalidArgument(
                "similarity",
                f"`{name}` is {values.shape}, `same` {same.shape}, with {len(category)} categories",
            )
    categories = np.array(category, np.str_)
    if product is not None:
        similarity, same, categories = _by_product(similarity, same, categories, product)
    known = {space: weight for space, weight in DEFAULT_WEIGHTS.items() if space in similarity}
    fused = sum(weight * similarity[space] for space, weight in known.items())
    first = np.argsort(-np.asarray(fused), axis=1, kind="stable")[:, :top]  # (Q, K)
    group = np.unique(same, axis=0, return_inverse=True)[1].reshape(-1)
    # Photos of products that the catalogue has not: each stands alone.
    nowhere = ~same.any(axis=1)
    group[nowhere] = group.max(initial=0) + 1 + np.arange(nowhere.sum())
    return Pairs(
        {
            name: np.take_along_axis(values, first, 1).astype(np.float64).reshape(-1)
            for name, values in similarity.items()
        },
        np.take_along_axis(same, first, 1).reshape(-1),
        categories[first].reshape(-1),
        np.repeat(group, first.shape[1]),
        np.tile(np.arange(first.shape[1]), len(first)),
    )


def _by_product(
    similarity: Mapping[str, Similarity],
    same: NDArray[np.bool_],
    category: NDArray[np.str_],
    product: Sequence[str],
) -> tuple[dict[str, Similarity], NDArray[np.bool_], NDArray[np.str_]]:
    """Columns of pictures -> columns of products."""
    if len(product) != same.shape[1]:
        raise InvalidArgument("product", f"names {len(product)} pictures, there are {same.shape[1]}")
    number = np.unique(np.array(product, np.str_), return_inverse=True)[1].reshape(-1)
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(number.max() + 1))
    merged: dict[str, Similarity] = {
        name: np.maximum.reduceat(values[:, order], starts, axis=1) for name, values in similarity.items()
    }
    return merged, np.logical_or.reduceat(same[:, order], starts, axis=1), category[order][starts]
