"""How good a picture is to learn from or to search with: three cheap measures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from magpie.vision.preprocess import Pixels


class Quality(NamedTuple):
    """Measures of one picture; compare pictures of about the same size only."""

    sharpness: float  # variance of the Laplacian of the luma; a blurred photo stays below about 50
    brightness: float  # mean luma, [0, 255]
    short_side: int  # px


def quality(pixels: Pixels) -> Quality:
    """Measure (H, W, 3) uint8, sides of at least 3 px. Laplacian: Pech-Pacheco et al., 2000."""
    luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # (H, W), ITU-R BT.601
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    laplacian = around - 4 * luma[1:-1, 1:-1]
    return Quality(float(laplacian.var()), float(luma.mean()), min(pixels.shape[:2]))
