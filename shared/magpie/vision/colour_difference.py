"""How far the colours of two pictures lie apart, as luma and chroma of ITU-R BT.601."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of R, G, B


def largest_differences(
    some: NDArray[np.uint8], others: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, d, 3) and (n, d, 3) RGB -> (n,) and (n,): largest luma and chroma of d parts, levels."""
    difference = some.astype(np.float32) - others  # of the colours is that of their luma and chroma: linear
    luma = difference @ _LUMA  # (n, d)
    blue, red = 0.564 * (difference[..., 2] - luma), 0.713 * (difference[..., 0] - luma)
    chroma = np.maximum(np.abs(blue), np.abs(red))
    return np.abs(luma).max(axis=1), chroma.max(axis=1)
