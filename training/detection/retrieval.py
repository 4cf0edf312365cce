"""What boxes do to search: recall@1 by the whole image, by detected boxes and by true ones.

A photo has one object or several, and so has a catalogue picture. Their score is that of the two objects that
go together best, in all spaces, as search ranks for a customer who wrote no config. Which objects a photo has
is the policy, and it is chosen by measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from magpie.geometry import WHOLE_IMAGE, Box
from magpie.ranking.calibration import HIT_SPACE
from magpie.ranking.hubness import Hubness
from magpie.vision.box_policy import CataloguePolicy, QueryPolicy
from magpie.vision.detector import Detection
from magpie.vision.embedder import unit
from magpie.vision.model_card import InputSpec
from magpie.vision.preprocess import crops, to_tensor
from training.detection.searched_pictures import Picture, Shop
from training.embedding.retrieval import Run, Vectors
from training.evaluation.bootstrap import intervals
from training.ranking.fit import default_weights
from training.ranking.serving_path import MAX_QUERY_OBJECTS

Find = Callable[[Image.Image], Sequence[Detection]]  # best first
Spaces = Mapping[str, Vectors]  # space -> (O, D) of O objects, unit norm
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
    """One picture's objects."""

    whole: Spaces  # one
    boxes: Spaces  # best first
    truth: Spaces

    def asked(self, policy: QueryPolicy) -> Spaces:
        """What a search with it would look for."""
        if policy.boxes == "whole" or not _count(self.boxes):
            return self.whole
        boxes = _rows(self.boxes, slice(1)) if policy.boxes == "best" else self.boxes
        share = policy.whole_image_share
        if not share:
            return boxes
        return {space: unit((1 - share) * v + share * self.whole[space]) for space, v in boxes.items()}

    def catalogued(self, by: str) -> Spaces:
        """What a picture of the catalogue is found by."""
        boxes = _rows(self.boxes, slice(CataloguePolicy().max_boxes))
        if by == "both":
            return _joined(boxes, self.whole)
        return boxes if by == "boxes" and _count(boxes) else self.whole


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
    hubness: Hubness | None = None,
    advance: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Every policy on every photo, against every kind of catalogue. `advance` is called once a picture."""
    photos = [_cut(picture, find, run, spec, advance) for picture in shop.photos]
    catalogue = [_cut(picture, find, run, spec, advance) for picture in shop.catalogue]
    right = np.array(
        [[bool(one.products & other.products) for other in shop.catalogue] for one in shop.photos], bool
    )
    asked = {name: [cut.asked(policy) for cut in photos] for name, policy in POLICIES.items()}
    asked[BETTER_OF] = [_joined(_rows(cut.boxes, slice(1)), cut.whole) for cut in photos]
    if all(_count(cut.truth) for cut in photos):
        asked[TRUE] = [cut.truth for cut in photos]
    held = {by: [cut.catalogued(by) for cut in catalogue] for by in CATALOGUES}
    return SearchResult(
        shop.name,
        {
            name: {by: _hits(objects, held[by], right, hubness) for by in held}
            for name, objects in asked.items()
        },
        [picture.group for picture in shop.photos],
        float(np.mean([_count(cut.boxes) > 0 for cut in photos])),
    )


def default_scores(asked: Spaces, held: Spaces, hubness: Hubness | None = None) -> NDArray[np.float64]:
    """What ranking gives without a customer's config: A objects asked for, H of the catalogue -> (A, H)."""
    spaces = sorted(held)
    cosines = np.stack([asked[space] @ held[space].T for space in spaces], axis=2)  # (A, H, S)
    if hubness is not None:
        cosines = cosines - hubness.penalties(held[HIT_SPACE], spaces)
    return np.asarray(cosines @ default_weights(spaces), np.float64)


def _cut(picture: Picture, find: Find, run: Run, spec: InputSpec, advance: Callable[[], None]) -> Cut:
    image = picture.load()
    boxes = [detection.box for detection in find(image)[:MAX_QUERY_OBJECTS]]
    truth = [] if picture.truth is None else [Box(*row) for row in picture.truth.tolist()]
    vectors = run(to_tensor(crops(np.asarray(image), [WHOLE_IMAGE, *boxes, *truth], spec), spec))
    advance()
    true = 1 + len(boxes)  # row of the first true box
    return Cut(*(_rows(vectors, rows) for rows in (slice(1), slice(1, true), slice(true, None))))


def _hits(
    asked: Sequence[Spaces], held: Sequence[Spaces], right: NDArray[np.bool_], hubness: Hubness | None
) -> Hits:
    """Objects of Q photos, objects of G pictures, (Q, G) which are right -> (Q,)."""
    scores = default_scores(_joined(*asked), _joined(*held), hubness)
    of_picture = np.maximum.reduceat(scores, _starts(held), axis=1)
    of_photo = np.maximum.reduceat(of_picture, _starts(asked), axis=0)
    hits: Hits = right[np.arange(len(asked)), of_photo.argmax(axis=1)]
    return hits


def _starts(parts: Sequence[Spaces]) -> NDArray[np.intp]:
    return np.cumsum([0, *map(_count, parts)][:-1])


def _count(objects: Spaces) -> int:
    return len(next(iter(objects.values())))


def _rows(objects: Spaces, rows: slice) -> Spaces:
    return {space: vectors[rows] for space, vectors in objects.items()}


def _joined(*parts: Spaces) -> Spaces:
    return {space: np.concatenate([part[space] for part in parts]) for space in parts[0]}
