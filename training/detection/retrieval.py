"""Does the detector help search? Recall@1 of grocery photos (val) against catalogue pictures (gallery).

A query is the whole photo, its best box, or a mixture of both vectors; a photo without a box is taken whole.
A product is found by its whole picture, or by the better of that and its best box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.geometry import WHOLE_IMAGE, Box
from magpie.vision.model_card import InputSpec
from magpie.vision.preprocess import crops, to_tensor
from training.datasets.catalogue_of_cards import DataEntry, examples_of
from training.datasets.example import Example
from training.embedding.retrieval import Run, Vectors

BestBox = Callable[[Image.Image], Box | None]
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the whole photo in a query's vector


def box_policies(
    best_box: BestBox, run: Run, spec: InputSpec, data: Path, space: str = "identity"
) -> dict[str, float]:
    """Recall@1 of each policy, and the share of photos that had a box."""
    photos, gallery = (
        examples_of(DataEntry("grocery-store", splits=(split,)), data) for split in ("val", "gallery")
    )
    whole, boxed, found = _vectors(photos, best_box, run, spec, space)
    pictures, products, found_in_gallery = _vectors(gallery, best_box, run, spec, space)
    both = np.maximum  # a product scores as the better of its objects

    def recall(similarity: Vectors) -> float:
        best = similarity.argmax(axis=1)
        return float(np.mean([photos[q].product == gallery[g].product for q, g in enumerate(best)]))

    table = {"photos with a box": float(found.mean()), "catalogue with a box": float(found_in_gallery.mean())}
    for share in SHARES:
        query = share * whole + (1 - share) * boxed
        query /= np.linalg.norm(query, axis=1, keepdims=True)
        table[f"{share:.0%} whole, catalogue whole"] = recall(query @ pictures.T)
        table[f"{share:.0%} whole, catalogue both"] = recall(both(query @ pictures.T, query @ products.T))
    best_of = both(whole @ pictures.T, boxed @ pictures.T)
    table["better of whole and box, catalogue whole"] = recall(best_of)
    best_of = both(best_of, both(whole @ products.T, boxed @ products.T))
    table["better of whole and box, catalogue both"] = recall(best_of)
    return table


def _vectors(
    examples: Sequence[Example], best_box: BestBox, run: Run, spec: InputSpec, space: str
) -> tuple[Vectors, Vectors, np.ndarray]:
    """Vectors of the whole pictures and of their best boxes (N, D) each, and which have a box (N,)."""
    whole, boxed, found = [], [], []
    for example in tqdm(examples, desc="embedding"):
        image = example.load()
        box = best_box(image)
        squares = crops(np.asarray(image), [WHOLE_IMAGE, box or WHOLE_IMAGE], spec)
        vectors = run(to_tensor(squares, spec))[space]
        whole.append(vectors[0])
        boxed.append(vectors[1])
        found.append(box is not None)
    return np.stack(whole), np.stack(boxed), np.array(found)
