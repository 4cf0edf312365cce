"""Whether two engines over one catalogue find the same: what a migration is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from magpie.index.archived_objects import ArchivedObjects, objects_in
from magpie.index.engine import Engine, Query
from magpie.index.filter_terms import Comparison, Filter
from magpie.store.catalogue import Catalogue
from magpie.v1.image_pb2 import EmbeddedObject
from magpie.v1.search_pb2 import Candidate

NEAREST = 10
_NOISE = 0.3  # norm, of a query beside the object that it was made of
_EQUAL = 2e-3  # cosines nearer than that may change places: one engine may hold vectors as int8
_PAGES = 40  # of a scan, in whose order products are as good as shuffled


@dataclass(frozen=True)
class SampledQuery:
    """An object of the catalogue, seen a little differently, and half the time a filter that it passes."""

    query: Query
    condition: Filter | None


@dataclass(frozen=True)
class Agreement:
    """Of the NEAREST objects that one engine finds, the mean share that the other finds as well."""

    queries: int
    share: float  # 1: the same everywhere
    filtered_share: float  # of the queries with a filter


def sample_queries(
    catalogue: Catalogue,
    archive: ArchivedObjects | None,
    customer: str,
    bundle: str,
    count: int,
    seed: int = 0,
) -> list[SampledQuery]:
    """At most `count`."""
    rng = np.random.default_rng(seed)
    pages = (part.objects for part in catalogue.load(customer, bundle) if part.objects)
    images = [(image, value) for page in islice(pages, _PAGES) for image, value in page.items() if value]
    queries: list[SampledQuery] = []
    for row in rng.permutation(len(images))[:count]:
        (product_id, sha256), value = images[row]
        objects = objects_in(value, archive, customer, bundle, product_id, sha256)
        product = catalogue.products(customer, [product_id]).get(product_id)
        if not objects or product is None:  # gone meanwhile
            continue
        category = product.category if len(queries) % 2 else ""
        condition = Comparison("category", "=", category) if category else None
        queries.append(SampledQuery(_seen_differently(objects[0], rng), condition))
    return queries


def agreement(
    one: Engine, other: Engine, customer: str, bundle: str, queries: Sequence[SampledQuery]
) -> Agreement:
    """Ask both, with all spaces alike."""
    shares: dict[bool, list[float]] = {True: [], False: []}  # by whether there is a filter
    for sampled in queries:
        weights = dict.fromkeys(sampled.query, 1.0)
        found = [
            engine.find(customer, bundle, [sampled.query], sampled.condition, NEAREST, weights).results[0]
            for engine in (one, other)
        ]
        shares[sampled.condition is not None].append(_share(*found))
    everything = shares[True] + shares[False]
    return Agreement(
        len(everything),
        float(np.mean(everything)) if everything else 1.0,
        float(np.mean(shares[True])) if shares[True] else 1.0,
    )


def _share(expected: Sequence[Candidate], found: Sequence[Candidate]) -> float:
    """Of `expected` that `found` has, or has something as near in place of."""
    if not expected:
        return float(not found)
    least = min(map(_fused, expected)) - _EQUAL
    return min(1.0, sum(_fused(candidate) >= least for candidate in found) / len(expected))


def _fused(candidate: Candidate) -> float:
    similarity: Mapping[str, float] = candidate.similarity
    return sum(similarity.values()) / len(similarity)


def _seen_differently(embedded: EmbeddedObject, rng: np.random.Generator) -> Query:
    query = {}
    for vector in embedded.vectors:
        values: NDArray[np.float32] = np.frombuffer(vector.values, "<f4")
        noise = rng.standard_normal(len(values))
        moved = values + _NOISE * noise / np.linalg.norm(noise)
        query[vector.space] = (moved / np.linalg.norm(moved)).astype(np.float32)
    return query
