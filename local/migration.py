"""Moves customers from one engine to the other while both serve, one catalogue and bundle after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from magpie.index.agreement import Agreement, agreement, sample_queries
from magpie.index.archived_objects import ArchivedObjects
from magpie.index.compact import CompactEngine
from magpie.index.redis_engine import RedisEngine
from magpie.store.catalogue import Catalogue


@dataclass(frozen=True)
class Moved:
    """One customer's index of one bundle."""

    customer: str
    bundle: str
    images: int
    agreement: Agreement


@dataclass(frozen=True)
class Migration:
    """Both engines over one catalogue. `exact` is the compact one, asked for exact answers."""

    catalogue: Catalogue
    archive: ArchivedObjects
    exact: CompactEngine
    redis: RedisEngine

    def indexes(self, customers: Sequence[str], bundle: str) -> list[tuple[str, str, int]]:
        """Customer, bundle, images: what there is to move. No customers: all; no bundle: all."""
        return [
            (customer, name, self.catalogue.images(customer, name))
            for customer in customers or self.catalogue.customers()
            for name in self.catalogue.bundles(customer)
            if bundle in ("", name)
        ]

    def fill(self, customer: str, bundle: str, progress: Callable[[int], None]) -> None:
        """Compare all documents with the catalogue, write what differs: after a kill, what is missing."""
        self.redis.follower.compare(customer, bundle, progress)

    def compare(self, customer: str, bundle: str, images: int, queries: int) -> Moved:
        """Ask both engines sampled queries."""
        sampled = sample_queries(self.catalogue, self.archive, customer, bundle, queries)
        judged = agreement(self.exact, self.redis, customer, bundle, sampled)
        return Moved(customer, bundle, images, judged)

    def drop(self, customers: Sequence[str], bundle: str) -> int:
        """Remove what the redis engine keeps, of all with the indexes. Returns of how many products."""
        indexes = self.indexes(customers, bundle)
        if customers:
            return sum(self.redis.drop(customer, name) for customer, name, _ in indexes)
        return sum(
            sum(self.redis.drop_bundle(name, [c for c, its, _ in indexes if its == name]).values())
            for name in {name for _, name, _ in indexes}
        )
