"""Pictures that are one another, saved again: smaller, as a worse JPEG, a little brighter, stretched or cut.

Found by fingerprint: a perceptual hash that differs in few bits, and colours that differ in few levels. Of
401 photos of groceries, clothes, figures and cards saved again, found are: as WebP, as JPEG of quality 30, at
half size or stretched by 10 %, all; as JPEG of quality 10 .995; at a quarter of the size .993; 10 % brighter
.995; with 1 % cut off each side .990, with 2 % .800, with 3 % .489. In black and white, most are others here.
Of the 27 million pairs among 7,345 other photos 32 pass: one photograph kept twice, or one thing photographed
twice from one place; none shows two different things. (The hash alone lets 70 pass, and 257 within 8 bits,
clothes that one person laid on one floor among them.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from magpie.duplicates.hamming_pairs import near_pairs
from magpie.v1.image_pb2 import Fingerprint
from magpie.vision.colour_difference import largest_differences
from magpie.vision.fingerprint import COLOUR_SIDE

MAX_BITS = 6  # of 64 that may differ
MAX_LUMA, MAX_CHROMA = 32.0, 14.0  # levels of [0, 255] by which any of the 4 x 4 parts may differ
_COLOURS = 3 * COLOUR_SIDE**2  # bytes


def re_encodings(fingerprints: Sequence[Fingerprint]) -> Iterator[tuple[int, int, int]]:
    """Pairs of rows, the lower first, and the bits in which they differ; each pair once, in any order.

    An empty fingerprint pairs with none. Some 30 s for a million.
    """
    rows = np.array([row for row, f in enumerate(fingerprints) if len(f.colours) == _COLOURS], np.intp)
    if len(rows) < 2:
        return
    hashes = np.array([fingerprints[row].perceptual_hash for row in rows], np.uint64)
    colours = np.frombuffer(b"".join(fingerprints[row].colours for row in rows), np.uint8)
    colours = colours.reshape(len(rows), -1, 3)
    for one, other, bits in near_pairs(hashes, MAX_BITS):
        luma, chroma = largest_differences(colours[one], colours[other])
        same = (luma <= MAX_LUMA) & (chroma <= MAX_CHROMA)
        yield from zip(rows[one[same]].tolist(), rows[other[same]].tolist(), bits[same].tolist(), strict=True)
