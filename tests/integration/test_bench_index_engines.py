"""Every engine of the index benchmark finds, filters, replaces and deletes as its figures presume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from tests.bench.index.clustered_vectors import OBJECTS
from tests.bench.index.collection import FILTERS, Collection, K, below, make
from tests.bench.index.exact import recall
from tests.bench.index.subject import Services, Subject, objects_of

QUERIES = 40
# Its peers are there once `make bench-index` has installed them.
SUBJECTS = pytest.importorskip("tests.bench.index.registry").SUBJECTS


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return make(tmp_path_factory.mktemp("bench") / "vectors", 4000)


@pytest.fixture(scope="module", params=list(SUBJECTS))
def subject(
    request: pytest.FixtureRequest, collection: Collection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    """Built by one instance, opened by another."""
    kind = SUBJECTS[request.param]
    urls = {"redis": "redis_url", "search": "search_url"}
    server = next((request.getfixturevalue(urls[need]) for need in kind.needs if need in urls), "")
    if server:
        redis.Redis.from_url(server).flushall()
    services = Services(server, request.getfixturevalue("local_aws") if "aws" in kind.needs else "")
    folder: Path = tmp_path_factory.mktemp(request.param)
    kind(collection, folder, services).build()
    opened = kind(collection, folder, services)
    opened.connect()
    opened.load()
    yield opened


def found(subject: Subject, query: int, share: float | None = None) -> np.ndarray:
    return subject.rows(subject.search(query, share, K))


def test_it_finds_most_of_the_exact_answer(subject: Subject, collection: Collection) -> None:
    recalls = [recall(found(subject, query), collection.exact[0, query]) for query in range(QUERIES)]
    assert np.mean([value for value in recalls if value is not None]) > 0.9


def test_a_filter_lets_only_its_share_pass(subject: Subject, collection: Collection) -> None:
    if not subject.filters:
        pytest.skip("it cannot filter")
    prices = np.repeat(collection.prices, OBJECTS)
    for number, share in enumerate(FILTERS[1:], 1):
        assert share is not None
        answers = [found(subject, query, share) for query in range(QUERIES)]
        for answer in answers:
            assert (prices[answer[answer >= 0]] < below(share)).all()
        recalls = [recall(a, collection.exact[number, query]) for query, a in enumerate(answers)]
        assert np.mean([value for value in recalls if value is not None]) > 0.8


def test_what_is_replaced_or_deleted_is_found_anew_or_no_more(
    subject: Subject, collection: Collection
) -> None:
    if not subject.writes:
        pytest.skip("it cannot replace or delete")
    query = int(np.flatnonzero(np.load(collection.folder / "shown.npy") >= 0)[0])
    product = int(collection.exact[0, query, 0]) // OBJECTS  # answers have no order
    before = (product - 1) % collection.products  # it is given the pictures of the product after it
    assert not np.isin(found(subject, query), objects_of(np.array([before]))).any()
    subject.replace(np.array([before]))
    assert np.isin(found(subject, query), objects_of(np.array([before]))).any()
    subject.delete(np.array([product]))
    assert not np.isin(found(subject, query), objects_of(np.array([product]))).any()
