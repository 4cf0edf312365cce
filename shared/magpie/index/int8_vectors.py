"""Vectors to rescore a shortlist with: as float32, or as int8 in a quarter of the bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LARGEST = 127  # of an int8, the same on both sides of 0


@dataclass(frozen=True)
class FloatVectors:
    """(N, d) float32, unit norm."""

    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def bytes_per_row(self) -> int:
        """What one vector takes."""
        return 4 * int(self.values.shape[1])

    def similarities(self, query: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(d,), (R,) -> (R,) cosines."""
        return self.values[rows] @ query


@dataclass(frozen=True)
class Int8Vectors:
    """Each vector as int8 with a scale of its own: value = scale * number, at most half a scale off.

    The query stays float (asymmetric): only the stored side is rounded.
    """

    values: NDArray[np.int8]  # (N, d)
    scales: NDArray[np.float32]  # (N,)

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> Int8Vectors:
        """Round (N, d) float32. A vector of zeros keeps zeros."""
        largest = np.abs(vectors).max(axis=1, initial=0.0)
        scales = (np.maximum(largest, np.finfo(np.float32).tiny) / _LARGEST).astype(np.float32)
        return cls(np.rint(vectors / scales[:, None]).astype(np.int8), scales)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def bytes_per_row(self) -> int:
        """What one vector takes, with its scale."""
        return int(self.values.shape[1]) + 4

    def similarities(self, query: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(d,), (R,) -> (R,) cosines."""
        return (self.values[rows].astype(np.float32) @ query) * self.scales[rows]

    def floats(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(R,) -> (R, d) what the numbers stand for."""
        return self.values[rows].astype(np.float32) * self.scales[rows, None]
