"""How much of exact search is left: recall@10 of codes alone, and rescored, against the float vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magpie.index.hamming import distances, nearest, rescored
from magpie.index.hash_model import Coder
from magpie.index.int8_vectors import FloatVectors, Int8Vectors

K = 10
SHORTLIST = 200  # rows that are rescored
_QUERIES_AT_ONCE = 64  # bounds the memory of their similarities to a large collection


@dataclass(frozen=True)
class Collection:
    """What is searched, with queries that are not in it, and the exact answers."""

    name: str
    queries: NDArray[np.float32]  # (Q, d), unit norm
    vectors: NDArray[np.float32]  # (N, d), unit norm
    exact: NDArray[np.intp]  # (Q, K) rows, by cosine of the float vectors

    @classmethod
    def of(cls, name: str, queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> Collection:
        """Finds the exact answers. Raises ValueError unless there are more than K vectors, and a query."""
        if len(vectors) <= K or not len(queries):
            raise ValueError(f"{name}: {len(vectors)} vectors and {len(queries)} queries measure nothing")
        parts = []
        for first in range(0, len(queries), _QUERIES_AT_ONCE):
            similarity = queries[first : first + _QUERIES_AT_ONCE] @ vectors.T
            parts.append(np.argpartition(-similarity, K - 1, axis=1)[:, :K])
        return cls(name, queries, vectors, np.concatenate(parts))

    def shortlist(self, most: int = SHORTLIST) -> int:
        """How many are rescored: `most`, but no more than a twentieth, or a search would be no search."""
        return max(K, min(most, len(self.vectors) // 20))


@dataclass(frozen=True)
class Row:
    """A line of the table. Recalls are the mean share of the exact K that are found."""

    space: str
    bits: int
    method: str
    collection: str
    objects: int  # N
    queries: int
    hamming: float  # recall@K of the codes alone
    shortlist: int  # rows rescored
    rescored: float  # recall@K of the shortlist rescored by float vectors
    rescored_int8: float
    code_bytes: int  # an object
    int8_bytes: int  # with its int8 vector and its scale
    float_bytes: int  # with its float vector


def measure(
    space: str, coder: Coder, collection: Collection, shortlists: Sequence[int] = (SHORTLIST,)
) -> list[Row]:
    """Search for every query; a row for each length of the shortlist."""
    codes = coder.encode(collection.vectors)
    floats, int8 = FloatVectors(collection.vectors), Int8Vectors.of(collection.vectors)
    counts = sorted({collection.shortlist(most) for most in shortlists})
    alone, after = 0.0, np.zeros((len(counts), 2))
    query_codes = coder.encode(collection.queries)
    for query, code, exact in zip(collection.queries, query_codes, collection.exact, strict=True):
        nearest_rows = nearest(distances(code, codes), counts[-1])
        alone += np.isin(exact, nearest_rows[:K]).mean()
        for place, count in enumerate(counts):
            rows = nearest_rows[:count]
            answers = (rescored(query, rows, floats, K), rescored(query, rows, int8, K))
            after[place] += [np.isin(exact, answer).mean() for answer in answers]
    code_bytes = codes.shape[1]
    queries = len(collection.queries)
    return [
        Row(
            space=space,
            bits=coder.card.bits,
            method=coder.method,
            collection=collection.name,
            objects=len(codes),
            queries=queries,
            hamming=round(float(alone) / queries, 4),
            shortlist=count,
            rescored=round(float(by_float) / queries, 4),
            rescored_int8=round(float(by_int8) / queries, 4),
            code_bytes=code_bytes,
            int8_bytes=code_bytes + int8.bytes_per_row,
            float_bytes=code_bytes + floats.bytes_per_row,
        )
        for count, (by_float, by_int8) in zip(counts, after, strict=True)
    ]
