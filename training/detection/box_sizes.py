"""Small, medium and large, by COCO's limits (Lin et al. 2014, arXiv 1405.0312) on a photo of one size.

COCO counts px of the photo as it is stored, which says little about what a detector sees: here every photo
counts as SIDE px on each side.
"""

from __future__ import annotations

import numpy as np

from magpie.geometry import Boxes

SIDE = 320  # px
SMALL, LARGE = 32, 96  # px: COCO's limits
# Name -> areas in px from the first to the second.
SIZES = {"small": (0, SMALL**2), "medium": (SMALL**2, LARGE**2), "large": (LARGE**2, SIDE**2 * 4)}


def size_counts(boxes: Boxes) -> dict[str, int]:
    """Boxes (N, 4), fractions -> how many are small, medium and large."""
    areas = np.prod((boxes[:, 2:] - boxes[:, :2]) * SIDE, axis=1)
    return {name: int(((areas >= low) & (areas < high)).sum()) for name, (low, high) in SIZES.items()}
