"""All that is measured, in the order of the table."""

from __future__ import annotations

from tests.bench.index.engines import Compact, RedisSearch
from tests.bench.index.peers import FaissFlat, FaissGraph, FaissInverted, Hnswlib, LanceDB, Usearch
from tests.bench.index.subject import Subject

SUBJECTS: dict[str, type[Subject]] = {
    subject.name: subject
    for subject in (Compact, RedisSearch, FaissFlat, FaissInverted, FaissGraph, Usearch, Hnswlib, LanceDB)
}
