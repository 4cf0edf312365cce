"""A real local AWS (S3, SQS, EventBridge) for every test that needs one."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from local import aws_server, ports, resources


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
