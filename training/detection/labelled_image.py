"""An image and what a detector is to find in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from magpie.geometry import Boxes
from training.datasets.boxed_photo import BoxedPhoto

Labels = NDArray[np.int64]  # (N,), places in a taxonomy


@dataclass(frozen=True)
class LabelledImage:
    """Boxes (N, 4) to find with their labels, and regions (M, 4) that are not judged, as fractions."""

    source: Image.Image | BoxedPhoto  # RGB, or where to read it: a large set is not held in memory
    boxes: Boxes
    ignored: Boxes
    labels: Labels

    @property
    def image(self) -> Image.Image:
        """RGB, read anew each time if it comes from a file."""
        return self.source.load() if isinstance(self.source, BoxedPhoto) else self.source

    @classmethod
    def of_products(cls, image: Image.Image, boxes: Boxes, ignored: Boxes) -> LabelledImage:
        """All boxes of the first class of the taxonomy."""
        return cls(image, boxes, ignored, np.zeros(len(boxes), np.int64))
