"""Where objects may be, without knowing which: selective search (Uijlings et al. 2013, IJCV 104).

A picture falls into small regions of like colour (Felzenszwalb and Huttenlocher 2004, IJCV 59); the two most
alike grow together, again and again, and the box of every region on the way is a proposal. By OpenCV, one
strategy at two scales, on a small square: on photos of playing cards 98 % of the boxes have a proposal of IoU
0.5, 88 % one of 0.7, which is the most that a detector can then find.

Training makes them anew of each picture as it is augmented. That costs 50 ms, beside 115 ms of a step for the
picture, on the same core; but no box has to follow a crop, a turn and a mosaic, and they are just what the
trained detector will get.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from magpie.geometry import Boxes
from magpie.vision.preprocess import Pixels
from training.models.backbone import MEAN, SCALE

PROPOSALS = "proposals"  # the second input of a network that needs them
SIDE = 192  # px of the square that is searched
SCALES = (50, 150)  # Felzenszwalb's k: the first regions are the larger, the larger it is
BLUR = 0.8  # sigma in px, before regions are made
MOST = 300  # of a picture; a cluttered one has about 250
LEAST = 0.03  # fraction of the square; a thinner box shows nothing

# (S, S, 3) uint8 -> boxes (P, 4), fractions of the square; at least one
Propose = Callable[[Pixels], Boxes]


def selective_search(pixels: Pixels) -> Boxes:
    """At most MOST boxes of a square picture, the largest first; the first is the whole square."""
    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(np.asarray(small)[:, :, ::-1]))  # OpenCV's order is BGR
    found = [np.array([[0, 0, SIDE, SIDE]])]
    for scale in SCALES:
        search.switchToSingleStrategy(scale, BLUR)
        found.append(np.asarray(search.process()).reshape(-1, 4))  # x, y, width, height in px
    rows = np.unique(np.concatenate(found), axis=0)
    rows = rows[rows[:, 2:].min(axis=1) >= LEAST * SIDE]
    # OpenCV's own order is random.
    rows = rows[np.argsort(-rows[:, 2] * rows[:, 3], kind="stable")][:MOST]
    corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)
    return (corners / SIDE).astype(np.float32)


def proposed(tensor: NDArray[np.float32]) -> Boxes:
    """Of pictures as a network sees them, (N, 3, S, S) -> (N, P, 4); those with fewer repeat the square."""
    pixels = np.rint(tensor * SCALE + MEAN).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    found = [selective_search(picture) for picture in pixels]
    most = max(map(len, found))
    return np.stack([np.concatenate([rows, rows[:1].repeat(most - len(rows), axis=0)]) for rows in found])
