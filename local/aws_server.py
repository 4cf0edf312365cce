"""The AWS of a local system: ministack, which speaks S3, SQS and EventBridge on one loopback port."""

from __future__ import annotations

import sys
from pathlib import Path

import urllib3

from local.home import REGION


def command() -> list[str]:
    """ministack in this interpreter."""
    return [sys.executable, "-m", "ministack"]


def environment(port: int, data: Path) -> dict[str, str]:
    """Loopback only. Objects are on disk as they are written; queues and rules when it stops by itself."""
    return {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "SERVICES": "s3,sqs,events",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(data.resolve() / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(data.resolve() / "s3"),
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(data.resolve()),  # for its pid file
        "DOCKER_HOST": f"unix://{data.resolve() / 'no-docker'}",  # there is none
    }


def probe(url: str) -> str:
    """What is wrong with it, or nothing."""
    try:
        answer = urllib3.request("GET", f"{url}/_ministack/health", timeout=2, retries=False)
    except urllib3.exceptions.HTTPError as problem:
        return str(problem)
    return "" if answer.status == 200 else f"HTTP {answer.status}"
