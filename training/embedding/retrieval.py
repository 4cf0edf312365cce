"""Nearest neighbours of whole pictures, for steering a training by its development split.

A `Run` maps pictures to a matrix for each space; a trained network, an ONNX file and the raw backbone are all
measured through it, with serving's own preprocessing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from magpie.geometry import WHOLE_IMAGE
from magpie.vision.model_card import InputSpec
from magpie.vision.preprocess import crops, to_tensor
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


def development_figures(
    run: Run,
    spec: InputSpec,
    photos: Sequence[Example],
    catalogue: Sequence[Example],
    columns: Sequence[str],
) -> dict[str, float]:
    """Recall@1 on the development photos of each data set, by name.

    Photos of known products search the catalogue pictures of their data set, in `identity` for the product
    and in `category` for each label column. Other photos search each other, their own source left out.
    """
    figures: dict[str, float] = {}
    for name in dict.fromkeys(photo.dataset for photo in photos):
        own = [photo for photo in photos if photo.dataset == name]
        gallery = [e for e in catalogue if e.dataset == name and e.catalogue and e.product is not None]
        with_product = [photo for photo in own if photo.product is not None]
        if with_product and gallery:
            queries, pictures = embed(run, spec, with_product), embed(run, spec, gallery)
            figures[f"{name} product"] = recall_at_1(
                queries["identity"],
                pictures["identity"],
                [e.product for e in with_product],
                [e.product for e in gallery],
            )
            for column in columns:
                labels = [e.labels.get(column) for e in with_product]
                if any(labels):
                    figures[f"{name} {column}"] = recall_at_1(
                        queries["category"],
                        pictures["category"],
                        labels,
                        [e.labels.get(column) for e in gallery],
                    )
        without = [photo for photo in own if photo.product is None or not gallery]
        figures |= _among_themselves(run, spec, name, without, columns)
    return figures


def unseen_figures(
    run: Run, spec: InputSpec, left_out: Sequence[Example], catalogue: Sequence[Example]
) -> dict[str, float]:
    """Recall@1 of photos of products that training left out, among catalogue pictures of all, by data set.

    `catalogue` are pictures of products that were trained on.
    """
    figures: dict[str, float] = {}
    for name in dict.fromkeys(example.dataset for example in left_out):
        photos = [e for e in left_out if e.dataset == name and not e.catalogue]
        gallery = [e for e in (*catalogue, *left_out) if e.dataset == name and e.catalogue and e.product]
        if photos and any(e.catalogue for e in left_out if e.dataset == name):
            figures[f"{name} unseen product"] = recall_at_1(
                embed(run, spec, photos)["identity"],
                embed(run, spec, gallery)["identity"],
                [e.product for e in photos],
                [e.product for e in gallery],
            )
    return figures


def _among_themselves(
    run: Run, spec: InputSpec, name: str, photos: Sequence[Example], columns: Sequence[str]
) -> dict[str, float]:
    if len(photos) < 2:
        return {}
    vectors = embed(run, spec, photos)
    groups = [photo.source or str(photo.path) for photo in photos]
    figures = {}
    if any(photo.product for photo in photos):
        figures[f"{name} product"] = leave_one_out(vectors["identity"], [p.product for p in photos])
    for column in columns:
        rows = [row for row, photo in enumerate(photos) if column in photo.labels]
        if len(rows) > 1:
            labels = [photos[row].labels[column] for row in rows]
            figures[f"{name} {column}"] = leave_one_out(
                vectors["category"][rows], labels, [groups[row] for row in rows]
            )
    return figures
