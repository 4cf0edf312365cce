"""Which searches are probed, and what is kept of them."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from magpie.index.engine import Found
from magpie.probe.recall import KEPT, measures_of, nearest
from magpie.v1.probe_pb2 import SampledSearch
from magpie.v1.search_pb2 import Candidate, CandidateList, FindCandidatesRequest

QUERIES = 5  # of a sampled search, its first; bounds what the exact answer costs

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """A search with its answer, as the search stage has them at hand. Read only."""

    customer: str
    request: FindCandidatesRequest
    found: Found
    asked_at: float  # seconds since the epoch, taken before the engine was asked
    trace_id: str


class ProbeSink(Protocol):
    """Takes what was sampled, while a caller waits for the answer: it must return at once."""

    def offer(self, answered: Answered) -> None:
        """Take it, or drop it."""


class Sampler:
    """Offers a share `rate` of the searches, decided by `chance` for each, to a sink."""

    def __init__(self, rate: float, sink: ProbeSink, chance: random.Random | None = None) -> None:
        self._rate = rate
        self._sink = sink
        self._chance = chance or random.Random()  # noqa: S311 - no secret

    def consider(self, answered: Answered) -> None:
        """Maybe offer it. A stale answer is not judged. Raises nothing: no search fails for its probe."""
        if answered.found.stale or self._chance.random() >= self._rate:
            return
        try:
            self._sink.offer(answered)
        except Exception:  # whatever a sink does, the answer goes out
            _log.exception("a sampled search was not taken, trace %s", answered.trace_id)


def sampled_search(answered: Answered) -> SampledSearch:
    """What is sent of it: some kilobytes."""
    request = FindCandidatesRequest()
    request.CopyFrom(answered.request)
    del request.queries[QUERIES:]
    return SampledSearch(
        customer=answered.customer,
        request=request,
        found=[_best(candidates, request) for candidates in answered.found.results[:QUERIES]],
        asked_at=answered.asked_at,
        trace_id=answered.trace_id,
    )


def _best(candidates: Sequence[Candidate], request: FindCandidatesRequest) -> CandidateList:
    """The first KEPT by every measure, all together, without vectors."""
    spaces = [vector.space for vector in request.queries[0].vectors]
    rows = {id(candidate): candidate for measure in measures_of(request, spaces)
            for candidate in nearest(candidates, measure, KEPT)}  # fmt: skip
    best = CandidateList(candidates=rows.values())
    for candidate in best.candidates:
        candidate.ClearField("identity")
    return best
