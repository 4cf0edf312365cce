"""What goes into an object's vector: its own region, and others that say more of it.

The vectors of several regions are averaged, as test-time augmentation averages several crops of a picture
(Krizhevsky et al. 2012, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from magpie.geometry import Box
from magpie.vision.embedder import unit


class View(NamedTuple):
    """One region of an object."""

    box: Box
    share: float  # (0, 1]; those of an object sum to 1


def regions(objects: Sequence[Sequence[View]]) -> list[Box]:
    """What is to be cut and embedded for the views of N objects: each box once, in the order of first use."""
    return list(dict.fromkeys(view.box for views in objects for view in views))


def mixed(vectors: NDArray[np.float32], objects: Sequence[Sequence[View]]) -> NDArray[np.float32]:
    """Vectors (R, d) of `regions(objects)` -> those of the N objects (N, d), unit norm."""
    row_of = {box: row for row, box in enumerate(regions(objects))}
    shares = np.zeros((len(objects), len(row_of)), np.float32)
    for row, views in enumerate(objects):
        for view in views:
            shares[row, row_of[view.box]] += view.share
    return unit(shares @ vectors)
