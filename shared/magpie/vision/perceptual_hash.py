"""64 bits that say what a picture looks like from afar: pHash (Zauner 2010, "Implementation and
benchmarking of perceptual image hash functions").

The picture's luma is shrunk to 32 x 32; of its discrete cosine transform the 8 x 8 lowest frequencies are
kept, and each gives one bit: above the median, or not. Saving a picture again, smaller or as a worse JPEG,
turns a few bits; another picture turns about half of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # px, of the luma that is hashed
_FREQUENCIES = 8  # of each axis, the lowest


def perceptual_hash(luma: NDArray[np.uint8]) -> int:
    """(SIDE, SIDE) -> 64 bits."""
    frequencies = (_COSINES @ luma.astype(np.float64) @ _COSINES.T).ravel()  # (64,)
    bits = frequencies > np.median(frequencies[1:])  # the first is the mean brightness, many times the others
    return int.from_bytes(np.packbits(bits).tobytes())


def distances(some: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Bits that differ, (N,) and (M,) -> (N, M) in [0, 64]. Two unrelated pictures: 32, give or take 4."""
    differing: NDArray[np.uint8] = np.bitwise_count(some[:, None] ^ others[None, :])
    return differing


def shrunk(pixels: NDArray[np.uint8], side: int, mode: str) -> NDArray[np.uint8]:
    """(H, W, 3) RGB -> (side, side) in mode `L`, (side, side, 3) in `RGB`. Each pixel is its part's mean."""
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert(mode)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def _cosines() -> NDArray[np.float64]:
    """Orthonormal DCT-II, the lowest frequencies: (8, SIDE)."""
    basis = np.cos(np.pi / SIDE * np.outer(np.arange(_FREQUENCIES), np.arange(SIDE) + 0.5))
    basis[0] *= np.sqrt(0.5)
    return np.asarray(basis * np.sqrt(2 / SIDE))


_COSINES = _cosines()
