"""A Redis-like server with search, or a cluster of them: commands go to the nodes that have their keys.

Three kinds are served alike: one node; a cluster any node of which searches all (Valkey, Redis with a
coordinator); and a cluster whose nodes search only what they hold. There each primary has an index of its
own, named so that its slot is that node's, every one is asked, and the answers are joined.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

import redis
from redis import exceptions
from redis.crc import key_slot

from magpie.errors import FailedPrecondition, Unavailable
from magpie.index.redis_schema import CUSTOMER, VECTOR, Schema, VectorIndex, index_prefix
from magpie.index.search_capabilities import Capabilities, detect
from magpie.store.redis_connection import redis_answers

_LUA = Path(__file__).with_name("lua")
_NO_INDEX = re.compile(r"unknown index|no such index|index .*not found", re.IGNORECASE)
_SEARCH_MILLISECONDS = 8000  # the largest that every server takes is 10000; else some stop early with a part
_FILLING_SECONDS = 5.0  # that a search waits for an index that is being built
_TRIES = 3  # of what meets a cluster that is moving slots or failing over
_MOVING = (exceptions.MovedError, exceptions.AskError, exceptions.NoScriptError)

Command = tuple[Any, ...]


@dataclass(frozen=True)
class Neighbours:
    """What one KNN query found."""

    keys: list[bytes]  # in any order; the K nearest of each node that was asked
    all_seen: bool  # there are no others that the query holds for


class Script:
    """A Lua script by its digest."""

    def __init__(self, name: str) -> None:
        self.text = (_LUA / f"{name}.lua").read_text()
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], arguments: Sequence[Any]) -> Command:
        """The command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


PLACE, DOCUMENTS = Script("redis_place"), Script("redis_documents")


class SearchServer:
    """Thread-safe. Connects at the first call; after an error the next call tries anew.

    Every method raises Unavailable while the server does not answer, FailedPrecondition if it cannot search.
    """

    def __init__(self, url: str, vector_index: VectorIndex | None = None) -> None:
        self.vector_index = vector_index or VectorIndex()
        self._url = url
        self._lock = threading.Lock()
        self._connection: tuple[Capabilities, _Nodes] | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._made: set[str] = set()  # names of indexes that were there when last looked at
        self._filled: set[str] = set()  # and had all documents

    @property
    def capabilities(self) -> Capabilities:
        """What it is and can do."""
        return self._connected()[0]

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands, each of which names its key first (scripts: the first of their keys).

        Those of one node are sent at once, the nodes are asked side by side. All must bear repetition.
        """
        capabilities, nodes = self._connected()
        if capabilities.problem:
            raise FailedPrecondition(capabilities.problem)
        for attempt in itertools.count(1):
            try:
                with redis_answers():
                    return self._execute(nodes, commands)
            except _MOVING as error:
                if attempt == _TRIES:
                    raise Unavailable(
                        f"the search cluster is moving its slots: {error}; try again"
                    ) from error
                self._look_again()
            except Unavailable:
                self._look_again()
                raise
        raise AssertionError

    def search(self, schema: Schema, queries: Sequence[tuple[str, int, bytes, int]]) -> list[Neighbours]:
        """Documents nearest to each (filter, K, vector, EF_RUNTIME)."""
        for attempt in itertools.count(1):
            indexes = self._filled_indexes(schema)
            commands = [
                (index, self._search_command(index, *query)) for index in indexes for query in queries
            ]
            try:
                with redis_answers():
                    answers = self._on_indexes(commands)
            except exceptions.ResponseError as error:
                moved = isinstance(error, exceptions.MovedError) or _NO_INDEX.search(str(error))
                if not moved or attempt == _TRIES:
                    raise
                self._look_again()
                continue
            found = []
            for row, (_, k, _, _) in enumerate(queries):
                parts = [answer[1::2] for answer in answers[row :: len(queries)]]
                found.append(
                    Neighbours([key for part in parts for key in part], all(len(p) < k for p in parts))
                )
            return found
        raise AssertionError

    def create_indexes(self, schema: Schema) -> list[str]:
        """Make the schema's index where it is missing, one on each node that has to be asked. Names."""
        names = self._index_names(schema)
        for name in names:
            if name not in self._made:
                try:
                    with redis_answers():
                        self._on_indexes([(name, tuple(schema.create(name, self.vector_index)))])
                except exceptions.ResponseError as error:
                    if "already exists" not in str(error).lower():
                        raise
                self._made.add(name)
        return names

    def _filled_indexes(self, schema: Schema) -> list[str]:
        """The same, once they have all documents. Raises Unavailable if that takes long."""
        names = self.create_indexes(schema)
        give_up = time.monotonic() + _FILLING_SECONDS
        for name in names:
            while name not in self._filled:
                with redis_answers():
                    share = _share_indexed(self._on_indexes([(name, ("FT.INFO", name))])[0])
                if share == 1:
                    self._filled.add(name)
                elif time.monotonic() > give_up:
                    raise Unavailable(
                        f"the search index {name} is being built, {share:.0%} is done: try again"
                    )
                else:
                    time.sleep(0.01)
        return names

    def drop_indexes(self, bundle: str) -> list[str]:
        """Drop a bundle's indexes, whatever their settings; documents stay. Their names."""
        _, nodes = self._connected()
        dropped = []
        for client in nodes.primaries():
            with redis_answers():
                for name in client.execute_command("FT._LIST"):
                    text = name.decode()
                    if text.startswith(index_prefix(bundle)) and text not in dropped:
                        client.execute_command("FT.DROPINDEX", name)
                        dropped.append(text)
        self._look_again()
        return dropped

    def close(self) -> None:
        """End the connections."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection[1].close()

    def _look_again(self) -> None:
        """After an error: nodes may have moved, indexes may be lost."""
        self._made.clear()
        self._filled.clear()
        if self._connection is not None:
            self._connection[1].renew()

    def _search_command(self, index: str, condition: str, k: int, vector: bytes, ef_runtime: int) -> Command:
        parameters: list[Any] = ["q", vector]
        ef = ""
        if self.vector_index.kind == "hnsw":
            ef = " EF_RUNTIME $ef"
            parameters += ["ef", ef_runtime]
        query = f"({condition})=>[KNN {k} @{VECTOR} $q{ef}]"
        return (
            *("FT.SEARCH", index, query),
            *("RETURN", 1, CUSTOMER),  # as good as nothing; not every server knows NOCONTENT
            *("TIMEOUT", _SEARCH_MILLISECONDS, "LIMIT", 0, k),
            *("PARAMS", len(parameters), *parameters, "DIALECT", 2),
        )

    def _index_names(self, schema: Schema) -> list[str]:
        capabilities, nodes = self._connected()
        if capabilities.problem:
            raise FailedPrecondition(capabilities.problem)
        name = schema.index_name(self.vector_index)
        tags = nodes.tags() if capabilities.is_cluster and not capabilities.answers_for_all else []
        return [f"{name}:{{{tag}}}" for tag in tags] if len(tags) > 1 else [name]

    def _connected(self) -> tuple[Capabilities, _Nodes]:
        with self._lock:
            if self._connection is None:
                with redis_answers():
                    client = redis.Redis.from_url(
                        self._url, socket_connect_timeout=2, socket_timeout=10, protocol=2
                    )
                    capabilities = detect(client)
                    nodes: _Nodes = _OneNode(client)
                    if capabilities.is_cluster:
                        client.close()
                        nodes = _ClusterNodes(self._url)
                self._connection = capabilities, nodes
            return self._connection

    def _execute(self, nodes: _Nodes, commands: Sequence[Command]) -> list[Any]:
        rows_of: dict[Any, list[int]] = defaultdict(list)
        for row, command in enumerate(commands):
            rows_of[nodes.of_key(command[3] if command[0] == "EVALSHA" else command[1])].append(row)
        answers: list[Any] = [None] * len(commands)
        parts = self._side_by_side(
            [(client, [commands[row] for row in rows]) for client, rows in rows_of.items()]
        )
        for rows, part in zip(rows_of.values(), parts, strict=True):
            for row, answer in zip(rows, part, strict=True):
                answers[row] = answer
        return answers

    def _on_indexes(self, commands: Sequence[tuple[str, Command]]) -> list[Any]:
        """Each on the node on which its index lies."""
        _, nodes = self._connected()
        groups = [
            (nodes.of_key(index), [command for _, command in group])
            for index, group in itertools.groupby(commands, key=lambda command: command[0])
        ]
        return [answer for part in self._side_by_side(groups) for answer in part]

    def _side_by_side(self, groups: Sequence[tuple[Any, Sequence[Command]]]) -> list[list[Any]]:
        if len(groups) == 1:
            return [_pipelined(*groups[0])]
        if self._threads is None:
            self._threads = ThreadPoolExecutor(16, thread_name_prefix="search-server")
        return list(self._threads.map(lambda group: _pipelined(*group), groups))


class _Nodes:
    """Where keys lie."""

    of_key: Callable[[str | bytes], redis.Redis]

    def primaries(self) -> list[Any]:
        raise NotImplementedError

    def tags(self) -> list[str]:
        """A hash tag of each primary: keys with it lie there."""
        return []

    def renew(self) -> None:
        """Look at the cluster again."""

    def close(self) -> None:
        raise NotImplementedError


class _OneNode(_Nodes):
    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.of_key = lambda _key: client

    def primaries(self) -> list[Any]:
        return [self._client]

    def close(self) -> None:
        self._client.close()


class _ClusterNodes(_Nodes):
    def __init__(self, url: str) -> None:
        self._cluster: Any = redis.RedisCluster.from_url(
            url, socket_connect_timeout=2, socket_timeout=10, protocol=2
        )
        self.of_key = self._of_key

    def _of_key(self, key: str | bytes) -> redis.Redis:
        node = self._cluster.get_node_from_key(key)
        if node is None:
            raise exceptions.ClusterDownError("no node has the slot")
        client: redis.Redis = self._cluster.get_redis_connection(node)
        return client

    def primaries(self) -> list[Any]:
        return [self._cluster.get_redis_connection(node) for node in self._cluster.get_primaries()]

    def tags(self) -> list[str]:
        tags: dict[str, str] = {}
        count = len(self._cluster.get_primaries())
        for tag in map(str, range(100_000)):  # the first few dozen, unless a node has hardly a slot
            slots = self._cluster.nodes_manager.slots_cache.get(key_slot(tag.encode()))
            if slots:
                tags.setdefault(slots[0].name, tag)
            if len(tags) == count:
                break
        return sorted(tags.values(), key=int)

    def renew(self) -> None:
        with redis_answers():
            self._cluster.nodes_manager.initialize()

    def close(self) -> None:
        self._cluster.close()


def _pipelined(client: Any, commands: Sequence[Command]) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = pipeline.execute(raise_on_error=False)
    if any(isinstance(answer, exceptions.NoScriptError) for answer in answers):
        for script in (PLACE, DOCUMENTS):
            client.script_load(script.text)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _share_indexed(info: list[Any]) -> float:
    """Of FT.INFO: how much of what lies under the prefix is in the index."""
    fields = dict(zip(info[::2], info[1::2], strict=False))
    if b"backfill_in_progress" in fields:  # Valkey
        done = float(fields.get(b"backfill_complete_percent", 0) or 0)
        return min(done, 0.99) if int(fields[b"backfill_in_progress"]) else 1.0
    if int(float(fields.get(b"indexing", 0) or 0)):  # Redis
        return min(float(fields.get(b"percent_indexed", 0) or 0), 0.99)
    return 1.0
