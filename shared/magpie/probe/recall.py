"""recall@10 of one search against the exact answer, while the catalogue moves on.

The two answers are of two moments. Every change of a product in between is in the change stream, so products
that are not in it are the same at both moments, and only their objects are compared: an engine that loses
nothing gives them in the same order both times. A place that a changed product took in the answer is one
place fewer to compare.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from magpie.v1.search_pb2 import Candidate, FindCandidatesRequest

K = 10  # recall at so many
KEPT = 2 * K  # candidates of a sampled answer: the rest makes up for products that change meanwhile
TIE = 1e-6  # similarities closer than this are equal: float32, summed in different orders

Key = tuple[str, str, float, float, float, float]  # product, picture, box
Measure = Mapping[str, float]  # space -> weight, at least 0


@dataclass(frozen=True)
class Recall:
    """How many of the nearest were wanted, and how many of them were found."""

    hits: int = 0
    wanted: int = 0  # 0: nothing to compare, because everything changed or nothing is there

    def __add__(self, other: Recall) -> Recall:
        """Of two together."""
        return Recall(self.hits + other.hits, self.wanted + other.wanted)


def measures_of(request: FindCandidatesRequest, spaces: Iterable[str]) -> list[Measure]:
    """By what the nearest are told: the request's weights, or without them each space by itself."""
    return [dict(request.weights)] if request.weights else [{space: 1.0} for space in spaces]


def fused(candidate: Candidate, measure: Measure) -> float:
    """Its similarity to the query by a measure; a multiple of the weighted mean."""
    return sum(weight * candidate.similarity[space] for space, weight in measure.items())


def nearest(candidates: Iterable[Candidate], measure: Measure, count: int) -> list[Candidate]:
    """The first of them, best first."""
    return sorted(candidates, key=lambda candidate: -fused(candidate, measure))[:count]


def recall(
    found: Sequence[Candidate],
    exact: Sequence[Candidate],
    measure: Measure,
    limit: int,
    width: int,
    changed: Collection[str],
) -> Recall:
    """Of one query by one measure.

    `found`: what the engine gave when asked for `limit`, at least the first KEPT of it; `exact`: the nearest
    that there are, at most `width` of them. `changed`: ids of products that may differ between the two
    answers. A candidate as near as the last that is wanted counts, whichever of its equals `exact` names.
    """
    places = min(KEPT, limit)
    found = nearest(found, measure, places)
    stable = [candidate for candidate in found if candidate.product_id not in changed]
    similarity: dict[Key, float] = {}
    for candidate in nearest(exact, measure, width):
        if candidate.product_id not in changed:
            similarity.setdefault(_key(candidate), fused(candidate, measure))
    wanted = min(K, places - (len(found) - len(stable)), len(similarity))
    if wanted <= 0:
        return Recall()
    descending = list(similarity.values())
    least = descending[wanted - 1] - TIE
    if len(exact) >= width and descending[-1] >= least:
        return Recall()  # more are equally near than the exact answer has: which were found cannot be told
    hits = {_key(candidate) for candidate in stable[:wanted]}
    return Recall(sum(similarity.get(key, least - 1) >= least for key in hits), wanted)


def _key(candidate: Candidate) -> Key:
    box = candidate.box
    return (candidate.product_id, candidate.image_sha256, box.x0, box.y0, box.x1, box.y1)
