"""Measures one engine at one size, each phase in a process of its own. `--help` says how."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import redis

from tests.bench.harness import percentile
from tests.bench.index.clustered_vectors import OBJECTS
from tests.bench.index.collection import FILTERS, Collection, Ids, K
from tests.bench.index.exact import recall
from tests.bench.index.memory import resident, watched
from tests.bench.index.registry import SUBJECTS
from tests.bench.index.subject import Services, Subject

WARM_UP = 5  # queries
FEWEST = 30  # queries that a figure is made of, however slow they are
PRODUCTS_A_WRITE = 5
WRITES_A_SECOND = 5.0  # while searches are timed: 25 products, 100 objects a second
DELETED = 0.05  # share of the objects at most


@click.command()
@click.argument("phase", type=click.Choice(["build", "serve", "write", "compact"]))
@click.argument("name", type=click.Choice(list(SUBJECTS)))
@click.argument("collection", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--redis", "redis_url", default="", help="URL of the catalogue.")
@click.option("--aws", "aws_url", default="", help="URL of S3.")
@click.option("--seconds", type=float, default=4.0, help="For each figure.")
def main(
    phase: str, name: str, collection: Path, folder: Path, redis_url: str, aws_url: str, seconds: float
) -> None:
    """Prints its figures as JSON on the last line."""
    folder.mkdir(parents=True, exist_ok=True)
    subject = SUBJECTS[name](Collection(collection), folder, Services(redis_url, aws_url))
    match phase:
        case "build":
            figures = build(subject)
        case "serve":
            figures = serve(subject, seconds)
        case "write":
            figures = write(subject, seconds)
        case _:
            figures = compact(subject)
    print(json.dumps(figures), flush=True)


def build(subject: Subject) -> dict[str, Any]:
    """Index and save."""
    seconds, peak, further = _watched(subject.build)
    disk = sum(path.stat().st_size for path in subject.folder.rglob("*") if path.is_file())
    return {"build_s": seconds, "build_peak_bytes": peak, "disk_bytes": disk, **further}


def compact(subject: Subject) -> dict[str, Any]:
    """After what `serve` has written."""
    seconds, peak, further = _watched(subject.compact)
    return {"compaction_s": seconds, "compaction_peak_bytes": peak, **further}


def _watched(work: Callable[[], dict[str, Any]]) -> tuple[float, int, dict[str, Any]]:
    """Seconds, bytes at the peak, and what it returned."""
    before = resident().anonymous
    start = time.perf_counter()
    with watched() as peak:
        further = work()
    return time.perf_counter() - start, peak.anonymous - before, further


def serve(subject: Subject, seconds: float) -> dict[str, Any]:
    """Open and search, then write. Memory is what searching has added to a process that knows the queries."""
    exact = subject.collection.exact
    _ = subject.collection.fused_queries
    subject.connect()
    before = resident()
    start = time.perf_counter()
    subject.load()
    subject.search(0, None, K)
    load_ms = 1000 * (time.perf_counter() - start)
    filters = FILTERS if subject.filters else FILTERS[:1]
    searches = [
        {"share": share, **searched(subject, share, exact[number], seconds)}
        for number, share in enumerate(filters)
    ]
    taken = resident() - before
    figures = {
        "load_ms": load_ms,
        "searches": searches,
        "anonymous_bytes": taken.anonymous,
        "mapped_bytes": taken.mapped,
        "redis_bytes": redis.Redis.from_url(subject.services.redis).info("memory")["used_memory"]
        if subject.services.redis
        else 0,
    }
    if subject.writes:
        with writing(subject, seconds) as written:
            figures["while_writing"] = searched(subject, None, None, seconds)
        figures["while_writing"]["objects_written_per_s"] = written["objects_per_s"]
        figures |= rates(subject, seconds)
    return figures


def searched(subject: Subject, share: float | None, exact: Ids | None, seconds: float) -> dict[str, Any]:
    """Ask every query once, or as many as there is time for; `exact` (Q, K) are the right answers."""
    count = len(subject.collection.fused_queries)
    for query in range(count - WARM_UP, count):
        subject.search(query, share, K)
    times, recalls = [], []
    end = time.perf_counter() + seconds
    for query in itertools.cycle(range(count)) if exact is None else range(count):
        start = time.perf_counter()
        with subject.alone():
            answer = subject.search(query, share, K)
        stop = time.perf_counter()
        times.append(1000 * (stop - start))
        if exact is not None:
            recalls.append(recall(subject.rows(answer), exact[query]))
        if stop > end and len(times) >= FEWEST:
            break
    found = [value for value in recalls if value is not None]
    return {
        "calls": len(times),
        **{f"p{percent}": percentile(times, percent) for percent in (50, 95, 99)},
        "recall": float(np.mean(found)) if found else None,
    }


@contextmanager
def writing(subject: Subject, seconds: float) -> Iterator[dict[str, float]]:
    """Replace objects at a steady rate meanwhile; says afterwards at which."""
    outcome: dict[str, float] = {}
    if subject.writer_is_a_process:
        command = [sys.executable, "-m", "tests.bench.index.trial", "write", subject.name]
        command += [str(subject.collection.folder), str(subject.folder), "--seconds", str(seconds)]
        command += ["--redis", subject.services.redis, "--aws", subject.services.aws]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            yield outcome
            outcome |= json.loads(process.stdout.read().splitlines()[-1])
        return
    writer = threading.Thread(target=lambda: outcome.update(steadily(subject, seconds)))
    writer.start()
    yield outcome
    writer.join()


def write(subject: Subject, seconds: float) -> dict[str, float]:
    """The other process of `writing`, not on the core that searches where there is another."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0) or {0})
    subject.load()
    print("writing", flush=True)
    return steadily(subject, seconds)


def steadily(subject: Subject, seconds: float) -> dict[str, float]:
    """PRODUCTS_A_WRITE, WRITES_A_SECOND."""
    some = batches(subject)
    start = time.perf_counter()
    written = 0
    while (now := time.perf_counter()) < start + seconds:
        products = next(some)
        with subject.alone():
            subject.replace(products)
        written += len(products) * OBJECTS
        time.sleep(max(0.0, now + 1 / WRITES_A_SECOND - time.perf_counter()))
    return {"objects_per_s": written / (time.perf_counter() - start)}


def rates(subject: Subject, seconds: float) -> dict[str, float]:
    """Objects a second that can be replaced, and deleted, with nothing else going on."""
    return {
        "upserts_per_s": _rate(subject, subject.replace, batches(subject), seconds / 2),
        "deletes_per_s": _rate(
            subject,
            subject.delete,
            islice(batches(subject, last_first=True), _batches_in(subject, DELETED)),
            seconds / 2,
        ),
    }


def _rate(subject: Subject, act: Callable[[Ids], None], some: Iterable[Ids], seconds: float) -> float:
    done = 0
    start = time.perf_counter()
    for products in some:
        act(products)
        done += len(products) * OBJECTS
        if time.perf_counter() > start + seconds:
            break
    return done / (time.perf_counter() - start)


def batches(subject: Subject, last_first: bool = False) -> Iterator[Ids]:
    """Products in no order, each once before any comes again."""
    order = np.random.default_rng(1).permutation(subject.collection.products)
    if last_first:
        order = order[::-1]
    size = min(PRODUCTS_A_WRITE, len(order))
    for first in itertools.cycle(range(0, len(order) - size + 1, size)):
        yield order[first : first + size]


def _batches_in(subject: Subject, share: float) -> int:
    return max(1, round(share * subject.collection.products / PRODUCTS_A_WRITE))


if __name__ == "__main__":
    main()
