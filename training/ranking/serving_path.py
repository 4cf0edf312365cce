"""Pictures to vectors as serving does it: the bundle's detector, its box policies, its embedder.

What is fitted to similarities must see those that search will see. So a photo is cut into the objects that
search would look for, and a catalogue picture into those that would be indexed. `whole_images` leaves the
detector out: one object a picture, the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magpie.errors import UndecodableImage
from magpie.tables.problems import BadFile, Problem
from magpie.vision.box_policy import WHOLE, CataloguePolicy, QueryPolicy
from magpie.vision.bundle import Bundle
from magpie.vision.decode import decode
from magpie.vision.detector import Detection, Detector
from magpie.vision.embedder import Embedder, unit
from magpie.vision.preprocess import Pixels, crops

MAX_QUERY_OBJECTS = 5  # what a search looks for if the caller does not say


@dataclass(frozen=True, eq=False)
class PictureVectors:
    """The objects of some pictures, picture after picture."""

    picture: NDArray[np.intp]  # (O,) the picture that an object is in, ascending
    vectors: dict[str, NDArray[np.float32]]  # space -> (O, d), unit norm

    def of(self, picture: int) -> slice:
        """The objects of one picture."""
        first, end = np.searchsorted(self.picture, [picture, picture + 1])
        return slice(int(first), int(end))


class ServingPath:
    """One bundle's models, run as serving runs them."""

    def __init__(self, bundle: Bundle, *, whole_images: bool = False, threads: int = 2) -> None:
        """Raises FailedPrecondition if a card does not fit."""
        self._detector = None if whole_images else Detector(bundle.detector_card, bundle.folder, threads)
        self._embedder = Embedder(bundle.embedder_card, bundle.folder, threads)
        self._catalogue = CataloguePolicy()
        self._query = QueryPolicy.of(bundle.detector_card.detection)

    def catalogue(
        self, pictures: Sequence[Path], progress: Callable[[], None] = lambda: None
    ) -> PictureVectors:
        """Pictures of the catalogue, as they would be indexed. Raises BadFile naming all that are no good."""
        return self._embedded(pictures, progress, self._catalogue_vectors)

    def queries(self, photos: Sequence[Path], progress: Callable[[], None] = lambda: None) -> PictureVectors:
        """Photos, as they would be searched for. Raises BadFile naming all that are no good."""
        return self._embedded(photos, progress, self._query_vectors)

    def _catalogue_vectors(self, pixels: Pixels) -> dict[str, NDArray[np.float32]]:
        return self._cut(
            pixels,
            [WHOLE] if self._detector is None else self._catalogue.objects(self._detector.detect(pixels)),
        )

    def _query_vectors(self, pixels: Pixels) -> dict[str, NDArray[np.float32]]:
        if self._detector is None:
            return self._cut(pixels, [WHOLE])
        found = self._query.objects(self._detector.detect(pixels, MAX_QUERY_OBJECTS))
        shares = np.array(self._query.shares([object_.label for object_ in found]), np.float32)[:, None]
        if not shares.any():
            return self._cut(pixels, found)
        vectors = self._cut(pixels, [*found, WHOLE])
        return {space: unit((1 - shares) * v[:-1] + shares * v[-1]) for space, v in vectors.items()}

    def _cut(self, pixels: Pixels, objects: Sequence[Detection]) -> dict[str, NDArray[np.float32]]:
        return self._embedder.embed(crops(pixels, [object_.box for object_ in objects], self._embedder.input))

    @staticmethod
    def _embedded(
        paths: Sequence[Path],
        progress: Callable[[], None],
        vectors_of: Callable[[Pixels], dict[str, NDArray[np.float32]]],
    ) -> PictureVectors:
        numbers: list[int] = []
        parts: dict[str, list[NDArray[np.float32]]] = {}
        problems = []
        for number, path in enumerate(paths):
            try:
                pixels = decode(path.read_bytes()).pixels
            except (OSError, UndecodableImage) as error:
                problems.append(Problem(0, f"{path}: {error}"))
                continue
            for space, vectors in vectors_of(pixels).items():
                parts.setdefault(space, []).append(vectors)
            numbers += [number] * (len(next(iter(parts.values()))[-1]))
            progress()
        if problems:
            raise BadFile("pictures", problems)
        return PictureVectors(
            np.array(numbers, np.intp), {space: np.concatenate(values) for space, values in parts.items()}
        )


def product_similarities(
    queries: PictureVectors, catalogue: PictureVectors, product: NDArray[np.intp]
) -> dict[str, NDArray[np.float32]]:
    """Space -> (Q, P): how similar a photo and a product are at most, over the objects of both.

    `product` (C,) numbers the product of each catalogue picture, 0 to P - 1, each at least once. Every photo
    and every product has an object.
    """
    of_object = product[catalogue.picture]  # (O,)
    order = np.argsort(of_object, kind="stable")
    product_starts = np.searchsorted(of_object[order], np.arange(product.max() + 1))
    query_starts = np.searchsorted(queries.picture, np.arange(queries.picture[-1] + 1))
    result = {}
    for space, vectors in queries.vectors.items():
        cosines = vectors @ catalogue.vectors[space][order].T
        best = np.maximum.reduceat(cosines, product_starts, axis=1)
        result[space] = np.maximum.reduceat(best, query_starts, axis=0)
    return result
