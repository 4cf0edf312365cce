"""What a Redis-like server can do for the redis engine, asked at connect, and the cure for what it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from redis import exceptions

# What the makers' pages say; where a server is not known, the larger figures are tried.
_VALKEY_8_TERMS = 16  # ElastiCache for Valkey 8.2; 1000 from 9.0 on
_TERMS = 1000
_VALKEY_NEIGHBOURS = 10_000
_NEIGHBOURS = 1_000_000


@dataclass(frozen=True)
class Capabilities:
    """Of one server or cluster."""

    product: str  # name and version
    has_search: bool
    is_cluster: bool
    answers_for_all: bool  # any node of a cluster searches all of them; else every primary has to be asked
    max_terms: int  # of a query
    max_neighbours: int  # K of KNN

    @property
    def problem(self) -> str:
        """What keeps the redis engine from working there and how to cure it; empty: nothing."""
        if self.has_search:
            return ""
        return (
            f"{self.product} has no search: FT.CREATE is unknown to it. The redis engine needs Redis 8 (or "
            "one with the search module), ElastiCache for Valkey 8.2 or later (node-based, not serverless), "
            "or MemoryDB created with search enabled: name such a server by MAGPIE_SEARCH_REDIS_URL, or set "
            "MAGPIE_ENGINE=compact"
        )

    def lines(self) -> dict[str, str]:
        """For people."""
        cluster = "one node"
        if self.is_cluster:
            cluster = "cluster" if self.answers_for_all else "cluster, every primary is asked"
        return {
            "server": self.product,
            "search": "yes" if self.has_search else self.problem,
            "nodes": cluster,
            "terms of a filter": f"{self.max_terms}; what is more is evaluated on the products found",
        }


def detect(client: redis.Redis) -> Capabilities:
    """Ask `client`, one node of a cluster or the only one. Raises redis.RedisError."""
    server: Any = client.info("server")
    cluster: Any = client.info("cluster")
    valkey = server.get("server_name") == "valkey" or "valkey_version" in server
    version = str(server.get("valkey_version") or server["redis_version"])
    eight = valkey and version.startswith("8.")
    return Capabilities(
        product=f"{'Valkey' if valkey else 'Redis'} {version}",
        has_search=_knows(client, "FT._LIST"),
        is_cluster=bool(cluster.get("cluster_enabled")),
        answers_for_all=valkey or _knows(client, "SEARCH.CLUSTERINFO"),
        max_terms=_VALKEY_8_TERMS if eight else _TERMS,
        max_neighbours=_VALKEY_NEIGHBOURS if valkey else _NEIGHBOURS,
    )


def _knows(client: Any, command: str) -> bool:
    try:
        client.execute_command(command)
    except exceptions.ResponseError as error:
        return "unknown command" not in str(error).lower()
    return True
