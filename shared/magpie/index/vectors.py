"""Vectors as they travel: little-endian float32 of unit norm."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from magpie.errors import InvalidArgument
from magpie.v1.image_pb2 import EmbeddedObject, Vector

NORM_TOLERANCE = 1e-2


def vectors_of(embedded: EmbeddedObject, field: str) -> dict[str, NDArray[np.float32]]:
    """Space -> (dimension,). Raises InvalidArgument, naming `field`, unless all are finite, of unit norm."""
    vectors: dict[str, NDArray[np.float32]] = {}
    for row, vector in enumerate(embedded.vectors):
        name = f"{field}.vectors[{row}]"
        if not vector.space or vector.space in vectors:
            raise InvalidArgument(f"{name}.space", f"must name a space once, got {vector.space!r}")
        vectors[vector.space] = _checked(vector, f"{name}.values")
    if not vectors:
        raise InvalidArgument(f"{field}.vectors", "needs one vector a space")
    return vectors


def dimensions(vectors: Iterable[Vector]) -> dict[str, int]:
    """Space -> dimension."""
    return {vector.space: len(vector.values) // 4 for vector in vectors}


def _checked(vector: Vector, field: str) -> NDArray[np.float32]:
    if not vector.values or len(vector.values) % 4:
        raise InvalidArgument(field, f"must be float32 values of 4 bytes, got {len(vector.values)} bytes")
    values = np.frombuffer(vector.values, "<f4")
    norm = float(np.linalg.norm(values.astype(np.float64)))
    if not abs(norm - 1.0) <= NORM_TOLERANCE:  # also refuses NaN and infinity
        raise InvalidArgument(field, f"must be finite and of unit norm, its norm is {norm}")
    return values
