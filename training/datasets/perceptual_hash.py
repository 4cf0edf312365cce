"""64 bits that say what a picture looks like from afar: pHash (Zauner 2010, "Implementation and
benchmarking of perceptual image hash functions").

The picture's luma is shrunk to 32 x 32; of its discrete cosine transform the 8 x 8 lowest frequencies are
kept, and each gives one bit: above the median, or not. Saving a picture again, smaller or as a worse JPEG,
turns a few bits; another picture turns about half of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn  # type: ignore[import-untyped]

SIDE = 32  # px, of the luma that is hashed
_FREQUENCIES = 8  # of each axis, the lowest


def perceptual_hash(luma: NDArray[np.uint8]) -> int:
    """(SIDE, SIDE) -> 64 bits."""
    frequencies = dctn(luma.astype(np.float32), norm="ortho")[:_FREQUENCIES, :_FREQUENCIES].ravel()  # (64,)
    bits = frequencies > np.median(frequencies[1:])  # the first is the mean brightness, many times the others
    return int.from_bytes(np.packbits(bits).tobytes())


def distances(some: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Bits that differ, (N,) and (M,) -> (N, M) in [0, 64]. Two unrelated pictures: 32, give or take 4."""
    differing: NDArray[np.uint8] = np.bitwise_count(some[:, None] ^ others[None, :])
    return differing
