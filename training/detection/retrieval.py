"""What boxes do to search: recall@1 by the whole image, by detected boxes and by true ones.

A photo has one object or several, and so has a catalogue picture; their similarity is that of the two most
similar objects, as search ranks them. Which objects those are is the policy, and it is chosen by measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from magpie.geometry import WHOLE_IMAGE, Box
from magpie.vision.box_policy import CataloguePolicy, QueryPolicy
from magpie.vision.detector import Detection
from magpie.vision.embedder import unit
from magpie.vision.model_card import InputSpec
from magpie.vision.preprocess import crops, to_tensor
from training.detection.searched_pictures import Picture, Shop
from training.embedding.retrieval import Run, Vectors
from training.evaluation.bootstrap import intervals
from training.ranking.serving_path import MAX_QUERY_OBJECTS

Find = Callable[[Image.Image], Sequence[Detection]]  # best first
Hits = NDArray[np.bool_]  # (Q,) whether the first hit of each photo is right

# Those that a detector's card can name. The first is how a card without a choice serves.
POLICIES = {
    "all boxes": QueryPolicy(),
    "best box": QueryPolicy(boxes="best"),
    "whole image": QueryPolicy(boxes="whole"),
    **{
        f"{which} + {share:.0%} whole": QueryPolicy(share, boxes)  # type: ignore[arg-type]
        for boxes, which in (("all", "all boxes"), ("best", "best box"))
        for share in (0.25, 0.5, 0.75)
    },
}
BETTER_OF = "better of best box and whole"  # measured beside them: two objects, which serving does not make
TRUE = "true boxes"
CATALOGUES = ("whole", "boxes", "both")  # what a catalogue picture is found by; serving: both


@dataclass(frozen=True)
class Cut:
    """One picture's vectors, unit norm."""

    whole: Vectors  # (1, D)
    boxes: Vectors  # (K, D), best first
    truth: Vectors  # (M, D)

    def asked(self, policy: QueryPolicy) -> Vectors:
        """(O, D): the objects that a search with it would look for."""
        if policy.boxes == "whole" or not len(self.boxes):
            return self.whole
        boxes = self.boxes[:1] if policy.boxes == "best" else self.boxes
        share = policy.whole_image_share
        return unit((1 - share) * boxes + share * self.whole) if share else boxes

    def catalogued(self, by: str) -> Vectors:
        """(O, D): what a picture of the catalogue is found by."""
        boxes = self.boxes[: CataloguePolicy().max_boxes]
        if by == "both":
            return np.concatenate([boxes, self.whole])
        return boxes if by == "boxes" and len(boxes) else self.whole


@dataclass(frozen=True)
class SearchResult:
    """Policy -> catalogue -> hits, of all photos of a shop."""

    shop: str
    hits: Mapping[str, Mapping[str, Hits]]
    groups: Sequence[str]  # of each photo
    boxed: float  # share of photos with a box

    @property
    def best(self) -> str:
        """Of POLICIES the one with the most hits as the catalogue is served, of equals the first."""
        return max(POLICIES, key=lambda name: int(self.hits[name]["both"].sum()))

    def recall(self, policy: str, by: str = "both", group: str | None = None) -> float:
        """Recall@1, of one group or all photos."""
        of_group = np.array([group in (None, one) for one in self.groups], bool)
        return float(self.hits[policy][by][of_group].mean())

    def difference(self, policy: str, other: str) -> tuple[float, float, float]:
        """`policy` less `other`, and its 95 % interval: low, high. The same photos, in pairs."""
        off = self.hits[policy]["both"].astype(np.float64) - self.hits[other]["both"]
        low, high = intervals(off[None])[0]
        return float(off.mean()), float(low), float(high)

    def summary(self) -> dict[str, Any]:
        """JSON-ready recall@1: policy -> catalogue -> all photos, and each group."""
        names = sorted(set(self.groups) - {""})
        return {
            "photos": len(self.groups),
            "with a box": round(self.boxed, 4),
            "recall@1": {
                policy: {
                    by: {
                        "all": round(self.recall(policy, by), 4),
                        **{group: round(self.recall(policy, by, group), 4) for group in names},
                    }
                    for by in of_catalogue
                }
                for policy, of_catalogue in self.hits.items()
            },
        }


def measure_search(
    shop: Shop,
    find: Find,
    run: Run,
    spec: InputSpec,
    space: str = "identity",
    advance: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Every policy on every photo, against every kind of catalogue. `advance` is called once a picture."""
    photos = [_cut(picture, find, run, spec, space, advance) for picture in shop.photos]
    catalogue = [_cut(picture, find, run, spec, space, advance) for picture in shop.catalogue]
    right = np.array(
        [[bool(one.products & other.products) for other in shop.catalogue] for one in shop.photos], bool
    )
    asked = {name: [cut.asked(policy) for cut in photos] for name, policy in POLICIES.items()}
    asked[BETTER_OF] = [np.concatenate([cut.boxes[:1], cut.whole]) for cut in photos]
    if all(len(cut.truth) for cut in photos):
        asked[TRUE] = [cut.truth for cut in photos]
    held = {by: [cut.catalogued(by) for cut in catalogue] for by in CATALOGUES}
    return SearchResult(
        shop.name,
        {name: {by: _hits(objects, held[by], right) for by in held} for name, objects in asked.items()},
        [picture.group for picture in shop.photos],
        float(np.mean([len(cut.boxes) > 0 for cut in photos])),
    )


def _cut(
    picture: Picture, find: Find, run: Run, spec: InputSpec, space: str, advance: Callable[[], None]
) -> Cut:
    image = picture.load()
    boxes = [detection.box for detection in find(image)[:MAX_QUERY_OBJECTS]]
    truth = [] if picture.truth is None else [Box(*row) for row in picture.truth.tolist()]
    squares = crops(np.asarray(image), [WHOLE_IMAGE, *boxes, *truth], spec)
    vectors = run(to_tensor(squares, spec))[space]
    advance()
    return Cut(vectors[:1], vectors[1 : 1 + len(boxes)], vectors[1 + len(boxes) :])


def _hits(asked: Sequence[Vectors], held: Sequence[Vectors], right: NDArray[np.bool_]) -> Hits:
    """Objects of Q photos, objects of G pictures, (Q, G) which are right -> (Q,)."""
    cosines = np.concatenate(asked) @ np.concatenate(held).T
    of_picture = np.maximum.reduceat(cosines, _starts(held), axis=1)
    similarity = np.maximum.reduceat(of_picture, _starts(asked), axis=0)
    hits: Hits = right[np.arange(len(asked)), similarity.argmax(axis=1)]
    return hits


def _starts(objects: Sequence[Vectors]) -> NDArray[np.intp]:
    return np.cumsum([0, *map(len, objects)][:-1])
