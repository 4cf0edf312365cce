"""The embedder: what is in the boxes, as one unit vector a space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from magpie.errors import FailedPrecondition
from magpie.vision.model_card import InputSpec, ModelCard
from magpie.vision.onnx_session import OnnxSession, Tensor
from magpie.vision.preprocess import Pixels, to_tensor


class Embedder:
    """An embedder of a bundle. Its model loads at the first run; several threads may use it."""

    def __init__(self, card: ModelCard, folder: Path, threads: int) -> None:
        """Raises FailedPrecondition if the card is no embedder's."""
        if card.kind != "embedder" or not card.outputs:
            raise FailedPrecondition(f"model card {card.name} is no embedder's: kind {card.kind}")
        self._card = card
        self._session = OnnxSession(card, folder, threads)

    @property
    def input(self) -> InputSpec:
        """How its squares are cut."""
        return self._card.input

    @property
    def spaces(self) -> Mapping[str, int]:
        """Name of each space -> its dimension."""
        return self._card.spaces

    def load(self) -> None:
        """Load the model now. Raises FailedPrecondition if it does not match its card."""
        self._session.load()

    def embed(self, squares: Pixels) -> dict[str, Tensor]:
        """(N, size, size, 3) uint8 -> space -> (N, dimension) float32, unit norm, all in one run."""
        vectors = self._session.run(to_tensor(squares, self._card.input))
        return {space: unit(values) for space, values in vectors.items()}


def unit(vectors: Tensor) -> Tensor:
    """(N, d) -> each of norm 1. Quantised graphs end close to it only. A vector of zeros stays as it is."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit_vectors: Tensor = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit_vectors
