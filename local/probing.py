"""How much of what is nearest search finds: the probe's last results, and photos probed here and now."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from local.client import Client
from local.home import RunState
from magpie.bootstrap import Application
from magpie.errors import InvalidArgument
from magpie.probe.sampling import Answered, Sampler, sampled_search
from magpie.rpc.context import CallContext
from magpie.rpc.registry import unobserved
from magpie.settings import Settings
from magpie.store.probe_results import ProbeResult
from magpie.tables.queries import Query
from magpie.v1.visual_search_pb2 import SearchRequest


@dataclass(frozen=True)
class Summary:
    """Of one customer's results under one bundle."""

    customer: str
    bundle: str
    probes: int
    recall_at_10: float | None  # mean; None: nothing was judged
    lowest: float | None
    not_judged: int  # all that was found had changed meanwhile
    last: float  # seconds since the epoch


def summaries(customer: str, results: Sequence[ProbeResult]) -> Iterator[Summary]:
    """One a bundle; `results` newest first."""
    for bundle in dict.fromkeys(result.bundle for result in results):
        of_bundle = [result for result in results if result.bundle == bundle]
        recalls = [result.recall for result in of_bundle if result.recall is not None]
        yield Summary(
            customer,
            bundle,
            probes=len(of_bundle),
            recall_at_10=fmean(recalls) if recalls else None,
            lowest=min(recalls, default=None),
            not_judged=len(of_bundle) - len(recalls),
            last=of_bundle[0].at,
        )


class _Kept:
    """A sink that keeps what it is offered until it is taken."""

    def __init__(self) -> None:
        self.answered: list[Answered] = []

    def offer(self, answered: Answered) -> None:
        self.answered.append(answered)


def probe_now(
    state: RunState, client: Client, customer: str, queries: Sequence[Query], progress: Callable[[], None]
) -> tuple[list[ProbeResult], dict[str, str]]:
    """Results, newest first, and photo -> reason of those that were refused or found a stale index."""
    os.environ.update(state.environment())
    app = Application(Settings.from_environment(), observe=lambda _: unobserved)
    kept = _Kept()
    app.sampler = Sampler(1.0, kept)
    results: list[ProbeResult] = []
    failed: dict[str, str] = {}
    for query in queries:
        context = CallContext(customer=customer, trace_id=query.path.name)
        try:
            app.visual_search.Search(SearchRequest(image=client.photo(query.path)), context)
        except InvalidArgument as error:
            failed[str(query.path)] = str(error)
        else:
            if not kept.answered:
                failed[str(query.path)] = "the answer was stale"
            results += [_judged(app, answered) for answered in kept.answered]
            kept.answered.clear()
        progress()
    return results[::-1], failed


def _judged(app: Application, answered: Answered) -> ProbeResult:
    recall = app.judge.judge(sampled_search(answered))
    return ProbeResult(
        answered.asked_at, answered.request.bundle, recall.hits, recall.wanted, answered.trace_id
    )
