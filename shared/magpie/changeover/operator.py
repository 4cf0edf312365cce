"""What an operator does with a change-over. Every step can be interrupted and asked for again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Protocol

from magpie.changeover.change_overs import ChangeOvers
from magpie.changeover.checkpoint import Checkpoint, Step, go_on
from magpie.changeover.gate import Figure, GateQuery, check_reason, compare, refuse_losses
from magpie.changeover.record import ChangeOver, FailedImage, Progress
from magpie.changeover.sampled_queries import StoredPictures, sampled_queries
from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.services.bundle_search import BundleSearch
from magpie.store.catalogue import Catalogue
from magpie.store.compaction_leases import CompactionLeases
from magpie.vision.bundle_models import BundleModels

BACKLOG = 200  # images on their way at once: a new upload waits behind no more than these
SAMPLE = 300  # queries of the gate, where none are given
SETTLE_SECONDS = 3.0  # after a switch: processes go by the old record for a second, and finish their searches
LEASE_SECONDS = 15.0  # of a drop that was killed: so long the next one waits for it
COMPACTION_SECONDS = 60.0  # that a drop waits for a compaction of the index


class IndexStore(Protocol):
    """Where an index lies besides the catalogue."""

    def drop(self, customer: str, bundle: str) -> object:
        """Remove what it has of a bundle's index; nothing is no error."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found."""

    figures: list[Figure]
    failed: list[FailedImage]  # not in the new index


def _ignore(_done: int, _total: int) -> None:
    pass


class ChangeOverOperator:
    """`models` are the bundles that this process knows, by id.

    Every method raises Unavailable while Redis or S3 does not answer, and FailedPrecondition if the state of
    the change-over forbids it.
    """

    def __init__(
        self,
        change_overs: ChangeOvers,
        catalogue: Catalogue,
        pictures: StoredPictures,
        search: BundleSearch,
        models: Mapping[str, BundleModels],
        stores: Sequence[IndexStore],
        leases: CompactionLeases,
        reached: Checkpoint = go_on,
    ) -> None:
        self._change_overs = change_overs
        self._catalogue = catalogue
        self._pictures = pictures
        self._search = search
        self._models = models
        self._stores = stores
        self._leases = leases
        self._reached = reached

    @property
    def bundles(self) -> list[str]:
        """Ids of the bundles that this process knows: MAGPIE_BUNDLE's, then MAGPIE_NEXT_BUNDLE's."""
        return list(self._models)

    def start(self, customer: str, to_bundle: str, backlog: int = BACKLOG) -> Progress:
        """Begin to embed a customer's stored pictures with another bundle; searches see nothing of it.

        Raises InvalidArgument if this process has not got the bundle.
        """
        if to_bundle not in self._models:
            raise InvalidArgument("to", f"{to_bundle} is unknown here, known are {', '.join(self._models)}")
        if backlog < 1:
            raise InvalidArgument("backlog", f"must be at least 1, got {backlog}")
        self._check_index(customer)
        self._change_overs.announce(customer)
        self._reached(Step.ANNOUNCED)
        change_over = self._change_overs.start(customer, to_bundle, backlog)
        self._reached(Step.STARTED)
        if change_over.backlog != backlog:
            self._change_overs.limit(customer, backlog)
        return self.status(customer)

    def status(self, customer: str) -> Progress:
        """How far it is."""
        return self._change_overs.progress(self._change_overs.get(customer))

    def failed(self, customer: str) -> list[FailedImage]:
        """Pictures that will not be in the index of the bundle that does not serve."""
        return self._change_overs.failed(self._change_overs.get(customer))

    def pause(self, customer: str) -> Progress:
        """Send nothing more; what is on its way arrives."""
        self._change_overs.pause(customer, True)
        return self.status(customer)

    def resume(self, customer: str, retry_failed: bool = False) -> Progress:
        """Go on; `retry_failed`: also with what failed before."""
        if retry_failed:
            self._change_overs.retry_failed(self._change_overs.get(customer))
        self._change_overs.pause(customer, False)
        return self.status(customer)

    def switch(
        self,
        customer: str,
        queries: Sequence[GateQuery] = (),
        *,
        allow_missing: bool = False,
        allow_worse: str = "",
        sample: int = SAMPLE,
        progress: Callable[[int, int], None] = _ignore,
    ) -> Verdict | None:
        """Let the new bundle serve, in one step, if its index is complete and no worse; None: it serves
        already.

        Without `queries` the customer's own pictures ask. `allow_worse` is the reason for serving a worse
        one; it is recorded.
        """
        reason = check_reason(allow_worse) if allow_worse else ""
        change_over = self._change_overs.get(customer)
        if change_over.switched:
            return None
        failed = self._check_complete(change_over, allow_missing)
        figures = self._gate(change_over, queries, sample, progress)
        refuse_losses(figures, reason)
        self._reached(Step.GATE_PASSED)
        entry = {
            "what": "switch",
            "from": change_over.from_bundle,
            "to": change_over.to_bundle,
            "figures": [asdict(figure) for figure in figures],
            "missing": len(failed),
            "allow_worse": reason,
        }
        self._change_overs.switch(change_over, change_over.to_bundle, entry, allow_missing)
        self._reached(Step.SWITCHED)
        return Verdict(figures, failed)

    def rollback(self, customer: str) -> Progress:
        """Let the old bundle serve again, in one step. The new index stays, and is sent nothing until
        `resume`.

        Pictures that came since and are not in the old index yet are sent there now.
        """
        change_over = self._change_overs.get(customer)
        if not change_over.switched:
            raise FailedPrecondition(
                f"customer {customer} is served by {change_over.serving}: there is nothing to roll back"
            )
        entry = {"what": "rollback", "from": change_over.to_bundle, "to": change_over.from_bundle}
        self._change_overs.switch(change_over, change_over.from_bundle, entry)
        self._reached(Step.SWITCHED)
        return self.status(customer)

    def drop(self, customer: str, bundle: str = "") -> str:
        """Remove a bundle's index, and end the change-over. Returns the bundle.

        Empty: the old one, once the new one serves; to give a change-over up, name the new one.
        """
        change_over = self._change_overs.find(customer)
        if not bundle:
            bundle = change_over.dropping or change_over.from_bundle if change_over else ""
        if not bundle:
            self._change_overs.forget(customer)
            raise FailedPrecondition(
                f"customer {customer} has no change-over under way: name a bundle to drop"
            )
        if change_over and bundle == change_over.serving == change_over.from_bundle:
            raise FailedPrecondition(
                f"bundle {bundle} serves customer {customer}: to give the change-over up drop "
                f"{change_over.to_bundle}"
            )
        if change_over and change_over.changed_at:
            time.sleep(max(0.0, change_over.changed_at + SETTLE_SECONDS - time.time()))
        with self._no_compaction(customer, bundle):  # one at work would put its snapshot in use afterwards
            self._change_overs.begin_drop(customer, bundle)
            self._reached(Step.DROP_BEGUN)
            for store in self._stores:
                store.drop(customer, bundle)
            self._reached(Step.SNAPSHOTS_DROPPED)
            self._change_overs.end_drop(customer, bundle, {"what": "drop", "bundle": bundle})
            self._reached(Step.DROPPED)
        if self._change_overs.find(customer) is None:
            self._change_overs.forget(customer)
        return bundle

    @contextmanager
    def _no_compaction(self, customer: str, bundle: str) -> Iterator[None]:
        """Waits for one that is at work. Raises FailedPrecondition if that takes long."""
        give_up = time.monotonic() + COMPACTION_SECONDS
        while True:
            with self._leases.take(customer, bundle, LEASE_SECONDS) as taken:
                if taken:
                    yield
                    return
            if time.monotonic() > give_up:
                raise FailedPrecondition(
                    f"bundle {bundle} cannot be dropped now, its index is being compacted: try again later"
                )
            time.sleep(0.2)

    def _check_index(self, customer: str) -> None:
        """A change-over begins from the index that serves; one that is empty would count as complete."""
        serving = self._change_overs.serving(customer)
        others = self._catalogue.bundles(customer)
        if others and serving not in others and self._change_overs.find(customer) is None:
            raise FailedPrecondition(
                f"bundle {serving} serves customer {customer}, whose index has objects of "
                f"{', '.join(sorted(others))} alone: set MAGPIE_BUNDLE to that one first"
            )

    def _check_complete(self, change_over: ChangeOver, allow_missing: bool) -> list[FailedImage]:
        progress = self._change_overs.progress(change_over)
        if not progress.complete:
            raise FailedPrecondition(
                f"the index of {change_over.to_bundle} is not complete: {progress.done} of {progress.total} "
                f"pictures{'' if change_over.listed else ', and not all are counted yet'}"
                + (": go on with `magpie change-over resume`" if change_over.paused else "")
            )
        failed = self._change_overs.failed(change_over)
        if failed and not allow_missing:
            shown = "\n".join(f"  {f.product_id} {f.sha256[:12]}: {f.reason}" for f in failed[:20])
            more = f"\n  and {len(failed) - 20} more" if len(failed) > 20 else ""
            raise FailedPrecondition(
                f"{len(failed)} pictures failed under {change_over.to_bundle}:\n{shown}{more}\n"
                "Try them again with `magpie change-over resume --retry-failed`, or leave them out with "
                "`--allow-missing`."
            )
        return failed

    def _gate(
        self,
        change_over: ChangeOver,
        queries: Sequence[GateQuery],
        sample: int,
        progress: Callable[[int, int], None],
    ) -> list[Figure]:
        customer, old, new = change_over.customer, change_over.from_bundle, change_over.to_bundle
        for bundle in (old, new):
            if bundle not in self._models:
                raise FailedPrecondition(
                    f"the gate asks bundle {bundle}, which is not here, only {', '.join(self._models)}"
                )
        self._search.check_config(customer, new, self._models[new])
        asked = queries or sampled_queries(
            self._change_overs, self._catalogue, self._pictures, customer, (old, new), sample
        )
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            progress(done, len(asked))

        def ranking(bundle: str, query: GateQuery) -> list[str]:
            return self._search.ranking(customer, bundle, query.photo, query.right, query.leave_out)

        return compare(asked, old, new, ranking, count)
