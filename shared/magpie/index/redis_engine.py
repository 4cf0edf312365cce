"""The redis engine: neighbours by a server's own search, for catalogues and traffic beyond one machine.

Objects are documents of a search server (`redis_schema`), kept up with the catalogue by whoever searches
(`redis_follower`). The server evaluates as much of a filter as it can (`redis_filter`); the engine evaluates
all of it again on what was found, and asks for more until there are enough hits or everything has been seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magpie.errors import FailedPrecondition
from magpie.index.archived_objects import ArchivedObjects
from magpie.index.engine import (
    IDENTITY,
    Found,
    Query,
    Shares,
    Weights,
    check_queries,
    refuse_other_bundles,
    ways_of,
)
from magpie.index.filter_terms import Filter
from magpie.index.redis_filter import Pushdown, pushdown
from magpie.index.redis_follower import Follower, Place
from magpie.index.redis_schema import OBJECT, PRODUCT, VECTOR, Schema, customer_prefix
from magpie.index.search_server import SearchServer
from magpie.store.catalogue import Catalogue
from magpie.v1.product_pb2 import Product
from magpie.v1.search_pb2 import Candidate

_ATTEMPTS = 3  # at an answer of one moment while others write; then they have to wait
_FIRST_K = 4  # times the limit, where the server knows a part of the filter only
_MORE_K = 8  # times the last one, as long as there are too few hits
_SKEWED = 0.75  # share of one space from which the graph, made for all alike, is walked more widely
_DOCUMENTS_AT_ONCE = 2000  # fetched; bounds the size of an answer


class RedisEngine:
    """Engine over `catalogue` and a search server. Thread-safe. Exact with a `flat` VectorIndex.

    `archive` has the objects that the compact engine has taken out of the catalogue.
    """

    def __init__(
        self, catalogue: Catalogue, server: SearchServer, archive: ArchivedObjects | None = None
    ) -> None:
        self._catalogue = catalogue
        self._server = server
        self.follower = Follower(catalogue, server, archive)

    def find(
        self,
        customer: str,
        bundle: str,
        queries: Sequence[Query],
        condition: Filter | None,
        limit: int,
        weights: Weights | None = None,
    ) -> Found:
        """As the port `Engine` says."""
        for _ in range(_ATTEMPTS):
            place = self.follower.caught_up(customer, bundle)
            found = self._find(place, customer, bundle, queries, condition, limit, weights)
            if self.follower.place(customer, bundle) == place and not place.writing:
                return found
        with self.follower.frozen(customer, bundle) as place:
            return self._find(place, customer, bundle, queries, condition, limit, weights)

    def drop(self, customer: str, bundle: str) -> int:
        """Remove what the server has of a customer's objects. Returns of how many products."""
        return self.follower.drop(customer, bundle)

    def drop_bundle(self, bundle: str, customers: Iterable[str]) -> dict[str, int]:
        """The same for all customers, and the bundle's indexes. Products of each."""
        dropped = {customer: self.drop(customer, bundle) for customer in customers}
        self._server.drop_indexes(bundle)
        return dropped

    def _find(
        self,
        place: Place,
        customer: str,
        bundle: str,
        queries: Sequence[Query],
        condition: Filter | None,
        limit: int,
        weights: Weights | None,
    ) -> Found:
        schema = place.schema
        if schema is None:
            refuse_other_bundles(bundle, self._catalogue.bundles(customer))
            return Found([[] for _ in queries], [])
        check_queries(queries, dict(schema.dimensions))
        spaces = [space for space, _ in schema.dimensions]
        asked = [np.concatenate([query[space] for space in spaces]).astype(np.float32) for query in queries]
        ways = ways_of(weights, spaces)
        search = _Search(self._server, schema, customer, condition, place)
        nearest = search.nearest([(vector, way) for vector in asked for way in ways], limit)
        results, products = [], {}
        for row, vector in enumerate(asked):
            found = {
                document.key: document
                for documents in nearest[row * len(ways) : (row + 1) * len(ways)]
                for document in documents
            }
            results.append(_candidates(list(found.values()), vector, schema))
            products.update({document.product.id: document.product for document in found.values()})
        if not products and condition is None:
            refuse_other_bundles(bundle, self._catalogue.bundles(customer))
        return Found(results, [products[id_] for id_ in sorted(products)])


@dataclass(frozen=True)
class _Document:
    key: bytes
    candidate: bytes
    product: Product
    vector: NDArray[np.float32]  # (dimension of all spaces,)


class _Search:
    """The documents that one call fetches: each once, however many of its queries find it."""

    def __init__(
        self, server: SearchServer, schema: Schema, customer: str, condition: Filter | None, place: Place
    ) -> None:
        self._server = server
        self._schema = schema
        self._condition = condition
        self._prefix = customer_prefix(schema, customer)
        self._pushed: Pushdown = pushdown(customer, condition, place.slots, server.capabilities.max_terms)
        self._fetched: dict[bytes, _Document | None] = {}  # None: gone, or the filter does not hold
        self._products: dict[bytes, Product] = {}

    def nearest(
        self, asked: Sequence[tuple[NDArray[np.float32], Shares]], limit: int
    ) -> list[list[_Document]]:
        """For each query and its shares the `limit` documents with the largest weighted mean of cosines."""
        vectors = [_weighted(vector, shares, self._schema) for vector, shares in asked]
        index = self._server.vector_index
        ef = index.ef_runtime
        efs = [ef if max(shares.values()) < _SKEWED else 2 * ef for _, shares in asked]
        most = self._server.capabilities.max_neighbours
        k = limit if self._pushed.exact else _FIRST_K * limit
        k = min(k if index.kind == "flat" else max(k, index.least_k), most)
        nearest: list[list[_Document]] = [[] for _ in asked]
        open_ = list(range(len(asked)))
        while open_:
            answers = self._server.search(
                self._schema,
                [(self._pushed.query, k, vectors[row].tobytes(), max(efs[row], k)) for row in open_],
            )
            self._fetch({key for answer in answers for key in answer.keys})
            unfinished = []
            for row, answer in zip(open_, answers, strict=True):
                found = [self._fetched[key] for key in answer.keys]
                nearest[row] = _largest([d for d in found if d is not None], vectors[row], limit)
                if len(nearest[row]) < limit and not answer.all_seen:
                    unfinished.append(row)
            open_ = unfinished
            if open_ and k == most:
                raise FailedPrecondition(
                    f"filter: too few of the {k} nearest objects pass it, and "
                    f"{self._server.capabilities.product} neither finds more at once nor evaluates all of "
                    "it: make it shorter, or compare fewer attributes"
                )
            k = min(_MORE_K * k, most)
        return nearest

    def _fetch(self, keys: set[bytes]) -> None:
        # Each customer's documents have a prefix of their own: what has another is nobody's to see here.
        missing = [key for key in keys if key not in self._fetched]
        self._fetched.update(dict.fromkeys(missing))
        wanted = [key for key in missing if key.startswith(self._prefix)]
        for start in range(0, len(wanted), _DOCUMENTS_AT_ONCE):
            part = wanted[start : start + _DOCUMENTS_AT_ONCE]
            answers = self._server.execute([("HMGET", key, OBJECT, PRODUCT, VECTOR) for key in part])
            for key, (candidate, product, vector) in zip(part, answers, strict=True):
                if candidate is not None:
                    self._fetched[key] = self._document(key, candidate, product, vector)

    def _document(self, key: bytes, candidate: bytes, product: bytes, vector: bytes) -> _Document | None:
        parsed = self._products.get(product)
        if parsed is None:
            parsed = self._products[product] = Product.FromString(product)
        if self._condition is not None and not self._condition.matches(parsed):
            return None
        return _Document(key, candidate, parsed, np.frombuffer(vector, "<f4"))


def _weighted(vector: NDArray[np.float32], shares: Shares, schema: Schema) -> NDArray[np.float32]:
    """Its inner product with a document's vector is the weighted mean of the cosines."""
    weighted = vector.astype("<f4")
    for space, part in schema.slices().items():
        weighted[part] *= np.float32(shares[space])
    return weighted


def _largest(documents: list[_Document], weighted: NDArray[np.float32], limit: int) -> list[_Document]:
    if len(documents) <= limit:
        return documents
    similarity = np.stack([document.vector for document in documents]) @ weighted
    return [documents[row] for row in np.argpartition(similarity, -limit)[-limit:]]


def _candidates(
    documents: Sequence[_Document], asked: NDArray[np.float32], schema: Schema
) -> list[Candidate]:
    if not documents:
        return []
    vectors = np.stack([document.vector for document in documents])  # (N, dimension of all spaces)
    slices = schema.slices()
    cosines = {space: np.clip(vectors[:, part] @ asked[part], -1, 1) for space, part in slices.items()}
    candidates = []
    for row, document in enumerate(documents):
        candidate = Candidate.FromString(document.candidate)
        if IDENTITY in slices:
            candidate.identity = vectors[row, slices[IDENTITY]].tobytes()
        for space, of_space in cosines.items():
            candidate.similarity[space] = float(of_space[row])
        candidates.append(candidate)
    return candidates
