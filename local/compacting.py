"""Indexes of a local system: what their snapshots lack, and compaction here and now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from local import resources
from local.home import BUCKET, RunState
from magpie.errors import Aborted, FailedPrecondition, NotFound
from magpie.index.compaction import Compacted, compact
from magpie.index.compaction_policy import Backlog, Backlogs
from magpie.index.hash_model import HashModel
from magpie.settings import Settings
from magpie.store.catalogue import Catalogue
from magpie.store.compaction_leases import CompactionLeases
from magpie.store.customers import Customers
from magpie.store.redis_connection import connect
from magpie.store.snapshots import Snapshots
from magpie.vision.bundle import Bundle

LEASE_SECONDS = 900.0
COUNTED = 20_000  # changes, at most


@dataclass(frozen=True)
class Row:
    """What became of one index."""

    customer: str
    bundle: str
    outcome: str  # `compacted`, `unchanged`, or `busy`: another compaction has it
    done: Compacted | None = None  # where it was compacted


class Compacting:
    """Works beside the running system, on the same Redis, bucket and local disk."""

    def __init__(self, state: RunState) -> None:
        redis = connect(state.redis_url)
        self._engine = state.engine
        self._next = state.next_bundle
        self._customers = Customers(redis)
        self._catalogue = Catalogue(redis)
        self._leases = CompactionLeases(redis)
        self._snapshots = Snapshots(resources.client("s3", state.aws_url), BUCKET, Path(state.snapshots))

    def backlogs(self) -> Iterator[Backlog]:
        """Of all indexes."""
        backlogs = Backlogs(self._catalogue, self._snapshots)
        for customer, bundle in self.indexes():
            yield backlogs.of(customer, bundle, COUNTED)

    def indexes(self, customer: str = "") -> list[tuple[str, str]]:
        """Customer and bundle of each, of one customer or of all. Raises NotFound if there is none such."""
        if customer and not self._customers.exists(customer):
            raise NotFound(
                f"there is no customer `{customer}`: make it with its catalogue by "
                f"`magpie index CATALOGUE --customer {customer}`"
            )
        customers: Sequence[str] = [customer] if customer else self._customers.customers()
        return [(name, bundle) for name in customers for bundle in self._catalogue.bundles(name)]

    def compact(self, customer: str, bundle: str, step: Callable[[str], None], *, force: bool) -> Row:
        """Compact one, whatever the thresholds. `force`: though another compaction has it, or died of it.

        Raises FailedPrecondition under the redis engine, and if the bundle in use is another one, or has no
        hash model.
        """
        if self._engine == "redis":
            raise FailedPrecondition(
                "the system runs with the redis engine, which reads vectors from the catalogue: nothing is "
                "compacted under it; `magpie up --engine compact` makes snapshots again"
            )
        model = self._model(bundle)
        with self._leases.take(customer, bundle, LEASE_SECONDS) as taken:
            if not taken and not force:
                return Row(customer, bundle, "busy")
            try:
                done = compact(self._catalogue, self._snapshots, model, customer, bundle, step=step)
            except Aborted:
                return Row(customer, bundle, "busy")
            return Row(customer, bundle, "compacted" if done else "unchanged", done)

    def _model(self, bundle: str) -> HashModel:
        used = self._bundles.get(bundle)
        if used is None or used.hash is None:
            known = ", ".join(
                f"{one.id}{'' if one.hash else ' without a hash model'}" for one in self._bundles.values()
            )
            raise FailedPrecondition(
                f"the index is of {bundle}, here is {known}: name the folder of a bundle that fits by "
                "MAGPIE_BUNDLE or `magpie up --next-bundle`"
            )
        return HashModel.load(used.folder, used.hash, used.embedder_card.sha256)

    @cached_property
    def _bundles(self) -> dict[str, Bundle]:
        folders = [Settings.from_environment().bundle, *([Path(self._next)] if self._next else [])]
        return {bundle.id: bundle for bundle in map(Bundle.load, folders)}
