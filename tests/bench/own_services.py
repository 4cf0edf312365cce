"""Servers for one bench: fresh, on free ports of the loopback, ended and forgotten afterwards."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from local import aws_server, ports, redis_server
from local.process import ProcessSpec, start, stop


@contextmanager
def own_redis(search: bool = False) -> Iterator[str]:
    """URL of a Redis, with the search module if asked for."""
    port = ports.free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with tempfile.TemporaryDirectory() as folder:
        spec = ProcessSpec(
            "redis", redis_server.command(port, Path(folder), search), {}, lambda: redis_server.probe(url)
        )
        with _running(spec, Path(folder)):
            yield url


@contextmanager
def own_aws() -> Iterator[str]:
    """URL of a local AWS."""
    port = ports.free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        environment = aws_server.environment(port, Path(folder))
        spec = ProcessSpec("aws", aws_server.command(), environment, lambda: aws_server.probe(url))
        with _running(spec, Path(folder)):
            yield url


@contextmanager
def redis_of_our_own() -> Iterator[redis.Redis]:
    """A Redis, connected to."""
    with own_redis() as url, redis.Redis.from_url(url) as client:
        yield client


@contextmanager
def _running(spec: ProcessSpec, folder: Path) -> Iterator[None]:
    running = start(spec, folder / f"{spec.name}.log")
    try:
        while spec.probe():
            time.sleep(0.05)
        yield
    finally:
        stop(running, 30)
