"""Recall@1 of an embedder on whole pictures.

An `Embed` maps pictures to a matrix for each space; a trained network, an ONNX file and the raw backbone
are all measured through it, with serving's own preprocessing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magpie.geometry import WHOLE_IMAGE
from magpie.vision.model_card import InputSpec
from magpie.vision.preprocess import crops, to_tensor
from training.datasets import clothing_top10, grocery_store, lego_minifig
from training.datasets.example import Example

Vectors = NDArray[np.float32]  # (N, D), unit norm
Run = Callable[[NDArray[np.float32]], Mapping[str, Vectors]]  # (N, 3, size, size) -> vectors by space


def embed(run: Run, spec: InputSpec, examples: Sequence[Example], batch: int = 32) -> dict[str, Vectors]:
    """Whole pictures, one object each, prepared as serving does."""
    parts: dict[str, list[Vectors]] = {}
    for first in range(0, len(examples), batch):
        squares = [crops(np.asarray(e.load()), [WHOLE_IMAGE], spec) for e in examples[first : first + batch]]
        for space, vectors in run(to_tensor(np.concatenate(squares), spec)).items():
            parts.setdefault(space, []).append(vectors)
    return {space: np.concatenate(vectors) for space, vectors in parts.items()}


def recall_at_1(
    queries: Vectors, gallery: Vectors, query_labels: Sequence[object], gallery_labels: Sequence[object]
) -> float:
    """Share of queries whose nearest gallery vector by cosine has their label."""
    nearest = (queries @ gallery.T).argmax(axis=1)
    return float(np.mean([query_labels[q] == gallery_labels[g] for q, g in enumerate(nearest)]))


def leave_one_out(
    vectors: Vectors, labels: Sequence[object], groups: Sequence[object] | None = None
) -> float:
    """Recall@1 of each vector among all others; with `groups`, among those of other groups only."""
    similarity = vectors @ vectors.T
    groups = range(len(labels)) if groups is None else groups
    codes = np.unique(np.array([str(group) for group in groups]), return_inverse=True)[1]
    similarity[codes[:, None] == codes[None, :]] = -np.inf
    nearest = similarity.argmax(axis=1)
    return float(np.mean([labels[row] == labels[other] for row, other in enumerate(nearest)]))


def grocery(run: Run, spec: InputSpec, data: Path) -> dict[str, float]:
    """Phone photos (val) against the catalogue (gallery)."""
    queries, gallery = grocery_store.read(data, "val"), grocery_store.read(data, "gallery")
    photos, catalogue = embed(run, spec, queries), embed(run, spec, gallery)
    return {
        f"grocery {space} {level}": recall_at_1(
            photos[space],
            catalogue[space],
            [getattr(e, level) for e in queries],
            [getattr(e, level) for e in gallery],
        )
        for space in photos
        for level in ("product", "category")
    }


def lego(run: Run, spec: InputSpec, data: Path) -> dict[str, float]:
    """Views of one figure, leave one out. No model of ours is trained on toys."""
    examples = lego_minifig.read(data)
    vectors = embed(run, spec, examples)
    return {f"lego {s} product": leave_one_out(v, [e.product for e in examples]) for s, v in vectors.items()}


def clothing(run: Run, spec: InputSpec, data: Path) -> dict[str, float]:
    """Category among the test pictures of all other senders."""
    examples = clothing_top10.read(data, "test") + clothing_top10.read(data, "val")
    vectors = embed(run, spec, examples)
    labels, senders = [e.category for e in examples], [e.sender for e in examples]
    return {f"clothing {s} category": leave_one_out(v, labels, senders) for s, v in vectors.items()}


def measures(run: Run, spec: InputSpec, data: Path) -> Iterator[tuple[str, float]]:
    """Every figure, name and value in [0, 1]."""
    for part in (grocery, lego, clothing):
        yield from part(run, spec, data).items()
