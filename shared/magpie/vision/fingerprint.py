"""What a picture looks like from afar, in 56 bytes: its perceptual hash, and its colours.

The hash sees luma alone: a dress that a shop shows in five colours on one photograph it takes for one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from magpie.v1.image_pb2 import Fingerprint
from magpie.vision.perceptual_hash import SIDE, perceptual_hash, shrunk

COLOUR_SIDE = 4  # parts of each axis whose mean colour is kept
MIN_DEVIATION = 3.0  # levels of luma, [0, 255]: below, the picture shows nothing that could be compared


def fingerprint(pixels: NDArray[np.uint8]) -> Fingerprint:
    """Of (H, W, 3) RGB; an empty one of a picture that shows nothing."""
    luma = shrunk(pixels, SIDE, "L")
    if luma.std() < MIN_DEVIATION:
        return Fingerprint()
    colours = shrunk(pixels, COLOUR_SIDE, "RGB").tobytes()
    return Fingerprint(perceptual_hash=perceptual_hash(luma), colours=colours)
