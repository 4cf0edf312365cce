"""Which searches are sampled, and what is sent of them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from magpie.errors import InvalidArgument
from magpie.index.engine import Found
from magpie.probe.message import body_of, search_of
from magpie.probe.recall import KEPT
from magpie.probe.sampling import QUERIES, Answered, Sampler, sampled_search
from magpie.v1.image_pb2 import EmbeddedObject, Vector
from magpie.v1.probe_pb2 import SampledSearch
from magpie.v1.search_pb2 import Candidate, FindCandidatesRequest


class Sink:
    """Keeps what it is offered."""

    def __init__(self) -> None:
        self.taken: list[Answered] = []

    def offer(self, answered: Answered) -> None:
        """As the port says."""
        self.taken.append(answered)


def query() -> EmbeddedObject:
    return EmbeddedObject(
        vectors=[Vector(space=s, values=np.array([1, 0], "<f4").tobytes()) for s in ("identity", "similar")]
    )


def answered(queries: int = 1, candidates: int = 1, *, stale: bool = False, trace_id: str = "t") -> Answered:
    """Candidates of which those near in one space are far in the other."""
    request = FindCandidatesRequest(queries=[query()] * queries, bundle="b@1", filters=["price < 5"])
    results = [
        [
            Candidate(
                product_id=f"p{i}", similarity={"identity": 1 - i / 1000, "similar": i / 1000}, identity=b"v"
            )
            for i in range(candidates)
        ]
        for _ in range(queries)
    ]
    return Answered("shop", request, Found(results, [], stale), 1e9, trace_id)


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_a_share_of_the_searches_is_sampled_by_the_chance_that_is_given(rate: float) -> None:
    sink = Sink()
    sampler = Sampler(rate, sink, random.Random(7))
    for number in range(400):
        sampler.consider(answered(trace_id=str(number)))
    chance = random.Random(7)
    assert [a.trace_id for a in sink.taken] == [str(n) for n in range(400) if chance.random() < rate]
    assert len(sink.taken) == pytest.approx(400 * rate, abs=40)


def test_a_stale_answer_is_not_judged() -> None:
    sink = Sink()
    Sampler(1.0, sink).consider(answered(stale=True))
    assert sink.taken == []


def test_the_first_by_every_measure_are_sent_and_no_vector() -> None:
    search = sampled_search(answered(queries=QUERIES + 2, candidates=200))
    assert (len(search.request.queries), len(search.found)) == (QUERIES, QUERIES)
    ids = {candidate.product_id for candidate in search.found[0].candidates}
    assert ids == {f"p{i}" for i in [*range(KEPT), *range(200 - KEPT, 200)]}
    assert all(candidate.identity == b"" for found in search.found for candidate in found.candidates)


def test_the_answer_itself_stays_as_it_is() -> None:
    original = answered(queries=QUERIES + 2, candidates=200)
    before = [[candidate.SerializeToString() for candidate in row] for row in original.found.results]
    sampled_search(original)
    assert [[c.SerializeToString() for c in row] for row in original.found.results] == before
    assert len(original.request.queries) == QUERIES + 2


def test_weights_decide_what_the_first_are() -> None:
    original = answered(candidates=200)
    original.request.weights.update({"identity": 1.0, "similar": 3.0})
    ids = {candidate.product_id for candidate in sampled_search(original).found[0].candidates}
    assert ids == {f"p{i}" for i in range(200 - KEPT, 200)}


def test_a_message_is_read_as_it_was_written_and_fits_a_queue() -> None:
    search = sampled_search(answered(queries=QUERIES, candidates=200))
    assert search_of(body_of(search)) == search
    assert (search.customer, search.trace_id, search.asked_at) == ("shop", "t", 1e9)
    assert len(body_of(search)) < 2**18


@pytest.mark.parametrize("body", ["", "{}", "\u00e9", "AAAA", body_of(SampledSearch(trace_id="t"))])
def test_what_is_no_sampled_search_is_refused(body: str) -> None:
    with pytest.raises(InvalidArgument, match="event"):
        search_of(body)
