"""Photos of one product that were taken on one occasion, guessed from their colours.

Photos seldom say who took them and when, yet those of one visit to a shop share the light, the shelf and the
neighbours. A split by single photos puts photos of one visit on both sides and promises far too much: of the
grocery photos, a linear head on ImageNet features names .94 of such a development split right, and .66 of
photos from other visits; of a split by the visits that are guessed here, .70.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped]

from training.datasets.example import Example
from training.datasets.measured_picture import COLOUR_SIDE, Measured, pixels_of

VISITS = 5  # at most, of a product
PHOTOS = 4  # of a visit at least, on average: with fewer there is nothing to tell visits apart by
_BINS = 12  # of hue, saturation and value each


def visits(examples: Sequence[Example], measured: Mapping[Path, Measured]) -> dict[Path, str]:
    """Path -> name of the visit, for photos of products that name no source.

    Average linkage over palettes. The name is that of the visit's first file. A product with too few photos
    has no visits.
    """
    products = defaultdict[tuple[str, str], list[Path]](list)
    for example in examples:
        if example.product is not None and not example.catalogue and example.source is None:
            products[example.dataset, example.product].append(example.path)
    named: dict[Path, str] = {}
    for photos in products.values():
        paths = sorted(path for path in photos if path in measured)
        count = min(VISITS, len(paths) // PHOTOS)
        if count < 2:
            continue
        tree = linkage(np.stack([palette(measured[path]) for path in paths]), "average")
        clusters = fcluster(tree, count, "maxclust")
        first = {cluster: path.name for cluster, path in reversed(list(zip(clusters, paths, strict=True)))}
        named |= {path: first[cluster] for cluster, path in zip(clusters, paths, strict=True)}
    return named


def palette(picture: Measured) -> NDArray[np.float64]:
    """Which colours a picture has, wherever they are: (3 * _BINS,), the roots of shares.

    Euclidean distance of two is Hellinger's distance of the histograms.
    """
    colours = pixels_of(picture.colour, COLOUR_SIDE, COLOUR_SIDE, 3)
    hsv = np.asarray(Image.fromarray(colours).convert("HSV"))
    counts = [np.histogram(hsv[..., channel], _BINS, (0, 256))[0] for channel in range(3)]
    return np.sqrt(np.concatenate(counts) / COLOUR_SIDE**2)
