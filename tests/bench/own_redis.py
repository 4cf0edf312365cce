"""A Redis server for one bench."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from local import ports, redis_server
from local.process import ProcessSpec, start, stop


@contextmanager
def redis_url_of_our_own() -> Iterator[str]:
    """A fresh server on a free port, ended and forgotten afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        port = ports.free_port()
        url = f"redis://127.0.0.1:{port}/0"
        command = redis_server.command(port, Path(folder))
        spec = ProcessSpec("redis", command, {}, lambda: redis_server.probe(url))
        running = start(spec, Path(folder) / "redis.log")
        try:
            while redis_server.probe(url):
                time.sleep(0.05)
            yield url
        finally:
            stop(running, 10)


@contextmanager
def redis_of_our_own() -> Iterator[redis.Redis]:
    """The same, connected to."""
    with redis_url_of_our_own() as url, redis.Redis.from_url(url) as client:
        yield client
