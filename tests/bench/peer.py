"""The plain recipe that most shops start from, to compare with in the same run.

Decode the whole photo with Pillow, shrink it to a square, embed the whole image with the same ONNX file
through onnxruntime, look up the nearest in a faiss flat index. No boxes, no filters, no ranking, no writes.
"""

from __future__ import annotations

import io

import faiss
import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image, ImageOps

from magpie.vision.bundle import Bundle

SPACE = "identity"


class PlainRecipe:
    """Whole-image search over vectors of one space. `vectors`: (N, d) float32, unit norm."""

    def __init__(self, bundle: Bundle, vectors: NDArray[np.float32], threads: int) -> None:
        card = bundle.embedder_card
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            card.verified_model(bundle.folder), options, providers=["CPUExecutionProvider"]
        )
        self._spec = card.input
        faiss.omp_set_num_threads(threads)
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    def decode(self, photo: bytes) -> Image.Image:
        """Every pixel, upright."""
        return ImageOps.exif_transpose(Image.open(io.BytesIO(photo)).convert("RGB"))

    def embed(self, image: Image.Image) -> NDArray[np.float32]:
        """(1, d), unit norm."""
        small = image.resize((self._spec.size, self._spec.size), Image.Resampling.BILINEAR)
        pixels = (np.asarray(small, np.float32) - self._spec.mean) / self._spec.scale
        (vector,) = self._session.run([SPACE], {self._spec.name: pixels.transpose(2, 0, 1)[None]})
        return np.asarray(vector / np.linalg.norm(vector), np.float32)

    def nearest(self, vector: NDArray[np.float32], limit: int = 10) -> NDArray[np.int64]:
        """(1, limit) row numbers."""
        return np.asarray(self._index.search(vector, limit)[1])

    def search(self, photo: bytes) -> NDArray[np.int64]:
        """The whole of it."""
        return self.nearest(self.embed(self.decode(photo)))
