"""The local system: which processes it has, in which order they start and stop, and how they are."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from local import aws_server, ports, redis_server, resources, schedule
from local.home import BUCKET, Home, RunState
from local.process import ProcessSpec, ask_to_end, find, memory_mb, start, stop, tail
from magpie.errors import FailedPrecondition, Unavailable
from magpie.ingest.parking import STAGES, WITH_QUEUES
from magpie.ingest.sweep import OLDER_THAN_SECONDS, sweep
from magpie.store.catalogue import Catalogue
from magpie.store.redis_connection import connect
from magpie.store.uploads import Uploads

WORKERS = tuple(f"{function}-worker" for function in WITH_QUEUES)
SCHEDULED = {"compaction": 5.0, "changeover": 1.0}  # function -> seconds between its invocations
FUNCTIONS = ("api", *WORKERS, *SCHEDULED)
# Of compaction, where `magpie up` is told nothing else: soon enough to be seen at work.
_THRESHOLDS = {"MAGPIE_COMPACT_CHANGES": "2000", "MAGPIE_COMPACT_SECONDS": "30"}
# A worker touches its heartbeat at least every few seconds, but one batch can take as long as its visibility.
_STALE_SECONDS = 2 * resources.VISIBILITY_SECONDS
_START_SECONDS = 90.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ProcessStatus:
    """One line of `magpie status`."""

    name: str
    pid: int | None
    port: int | None
    memory_mb: float | None
    health: str  # `ok`, `stopped`, or what is wrong


class System:
    """The processes of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def up(
        self,
        wanted_ports: dict[str, int],
        own_redis_url: str,
        tell: Tell,
        engine: str = "compact",
        redis_search: bool = False,
        next_bundle: str | None = None,
    ) -> list[str]:
        """Start what does not work, and wait until all does. Names of what was started.

        `redis_search`: our Redis has its search module, as it has anyway for the engine `redis`.
        `next_bundle`: folder of a bundle to change over to, empty for none any more; None: as last time.
        Raises Unavailable with the end of the log of what did not start.
        """
        self._home.make()
        with self._home.locked():
            state = self._home.run_state()
            self._settle_redis(state, own_redis_url, engine, redis_search or engine == "redis")
            self._settle_next_bundle(state, next_bundle)
            self._settle_ports(state, wanted_ports)
            started = [*self._bring_up(state, self._redis(state), tell)]
            started += self._bring_up(state, [self._aws(state)], tell)
            queues = resources.ensure(state.aws_url)
            functions = [
                *self._workers(state, queues),
                *self._schedules(state, queues),
                self._api(state, queues),
            ]
            started += self._bring_up(state, functions, tell)
            _send_lost_again(state, queues, "aws" in started, tell)
        return started

    def down(self, tell: Tell) -> list[str]:
        """Stop everything; callers before what they call. Names of what was stopped."""
        stopped = []
        with self._home.locked():
            state = self._home.run_state()
            # ministack saves its queues when it stops by itself; a worker finishes its batch.
            for names in (FUNCTIONS, ("aws",), ("redis",)):
                alive = [name for name in names if find(state.processes.get(name)) is not None]
                for name in alive:
                    tell(f"stopping {name}")
                    ask_to_end(state.processes[name])
                for name in alive:
                    if not stop(state.processes[name], resources.VISIBILITY_SECONDS):
                        tell(f"{name} did not stop by itself and was ended")
                stopped += alive
            state.processes.clear()
            self._home.write_run_state(state)
        return stopped

    def status(self) -> list[ProcessStatus]:
        """How every process is."""
        state = self._home.run_state()
        return [self._status(state, spec) for spec in self._specs(state)] if state.ports else []

    def running(self) -> RunState:
        """Where the parts of a running system are. Raises FailedPrecondition if it is not running."""
        state = self._home.run_state()
        if find(state.processes.get("api")) is None:
            raise FailedPrecondition(
                f"no local system is running in {self._home.folder}: start it with "
                f"`magpie up{'' if str(self._home.folder) == '.magpie' else f' --home {self._home.folder}'}`"
            )
        return state

    def _status(self, state: RunState, spec: ProcessSpec) -> ProcessStatus:
        process = find(state.processes.get(spec.name))
        port = state.ports.get(spec.port)
        if process is None:
            return ProcessStatus(spec.name, None, port, None, "stopped")
        return ProcessStatus(spec.name, process.pid, port, memory_mb(process), spec.probe() or "ok")

    def _settle_redis(self, state: RunState, own_redis_url: str, engine: str, search: bool) -> None:
        """The user's own Redis, if one is named; ours is stopped then. And the engine over it."""
        search = search or state.redis_has_search
        if (own_redis_url, search) != (state.own_redis_url, state.redis_has_search):
            stopped: tuple[str, ...] = (*FUNCTIONS, "redis")
        else:
            stopped = () if engine == state.engine else FUNCTIONS
        for name in stopped:  # all of them are told of Redis and the engine when they start
            stop(state.processes.pop(name, None), resources.VISIBILITY_SECONDS)
        state.own_redis_url, state.engine, state.redis_has_search = own_redis_url, engine, search

    def _settle_next_bundle(self, state: RunState, folder: str | None) -> None:
        """All functions are told of it when they start."""
        if folder is None or folder == state.next_bundle:
            return
        for name in FUNCTIONS:
            stop(state.processes.pop(name, None), resources.VISIBILITY_SECONDS)
        state.next_bundle = folder

    def _settle_ports(self, state: RunState, wanted: dict[str, int]) -> None:
        """Ports that are asked for, else those of last time, else free ones."""
        for name, user in (("redis", "redis"), ("aws", "aws"), ("grpc", "api"), ("http", "api")):
            port = wanted.get(name) or state.ports.get(name)
            if port == state.ports.get(name) and find(state.processes.get(user)) is not None:
                continue  # ours has it
            if port is None or (name not in wanted and not ports.is_free(port)):
                port = ports.free_port()
            elif not ports.is_free(port):
                raise FailedPrecondition(f"--{name}-port: {port} is taken by another program; choose another")
            if port != state.ports.get(name):
                # Whoever was told of the old one has to be started again.
                dependents = (user,) if user == "api" else (user, *FUNCTIONS)
                for dependent in dependents:
                    stop(state.processes.pop(dependent, None), resources.VISIBILITY_SECONDS)
            state.ports[name] = port

    def _bring_up(self, state: RunState, specs: list[ProcessSpec], tell: Tell) -> list[str]:
        """Start those that do not work, all at once, then wait for all."""
        missing = [spec for spec in specs if self._status(state, spec).health != "ok"]
        for spec in missing:
            stop(state.processes.get(spec.name), resources.VISIBILITY_SECONDS)
            self._home.heartbeat(spec.name).unlink(missing_ok=True)
            tell(f"starting {spec.name}")
            state.processes[spec.name] = start(spec, self._home.log(spec.name))
            self._home.write_run_state(state)
        for spec in missing:
            self._wait_for(state, spec)
            tell(f"{spec.name} works")
        return [spec.name for spec in missing]

    def _wait_for(self, state: RunState, spec: ProcessSpec) -> None:
        give_up = time.monotonic() + _START_SECONDS
        while wrong := spec.probe():
            ended = find(state.processes[spec.name]) is None
            if ended or time.monotonic() > give_up:
                log = self._home.log(spec.name)
                what = "ended" if ended else f"does not answer after {_START_SECONDS:.0f} s ({wrong})"
                raise Unavailable(f"{spec.name} {what}; the end of {log}:\n{tail(log)}")
            time.sleep(0.05)

    def _specs(self, state: RunState) -> Iterator[ProcessSpec]:
        yield from self._redis(state)
        yield self._aws(state)
        yield from self._workers(state, None)
        yield from self._schedules(state, None)
        yield self._api(state, None)

    def _redis(self, state: RunState) -> list[ProcessSpec]:
        if state.own_redis_url:
            if wrong := redis_server.probe(state.own_redis_url):
                raise Unavailable(f"--redis-url: {state.own_redis_url} does not answer: {wrong}")
            return []
        return [
            ProcessSpec(
                "redis",
                redis_server.command(
                    state.ports["redis"], self._home.redis_data, search=state.redis_has_search
                ),
                {},
                lambda: redis_server.probe(state.redis_url),
                "redis",
            )
        ]

    def _aws(self, state: RunState) -> ProcessSpec:
        return ProcessSpec(
            "aws",
            aws_server.command(),
            aws_server.environment(state.ports["aws"], self._home.aws_data),
            lambda: aws_server.probe(state.aws_url),
            "aws",
        )

    def _workers(self, state: RunState, queues: resources.Queues | None) -> Iterator[ProcessSpec]:
        for stage, name in zip(WITH_QUEUES, WORKERS, strict=True):
            heartbeat = self._home.heartbeat(name).resolve()
            environment = state.environment() | {
                # One thread each: they share the cores with one another and with the api.
                "MAGPIE_THREADS": "1",
                "AWS_LAMBDA_FUNCTION_NAME": f"magpie-{stage}",
            }
            if queues is not None:
                environment["MAGPIE_NEXT_QUEUE_URL"] = queues.after(stage)
                environment["MAGPIE_PARKING_QUEUE_URL"] = queues.parked[stage]
            yield ProcessSpec(
                name,
                [sys.executable, "-m", "local.worker", stage, str(heartbeat)],
                _ours(environment),
                functools.partial(_heartbeat_probe, heartbeat),
            )

    def _schedules(self, state: RunState, queues: resources.Queues | None) -> Iterator[ProcessSpec]:
        environment = state.environment()
        environment |= {name: os.environ.get(name, value) for name, value in _THRESHOLDS.items()}
        if queues is not None:
            environment["MAGPIE_NEXT_QUEUE_URL"] = queues.work[STAGES[0]]  # of pictures to be embedded anew
        for function, seconds in SCHEDULED.items():
            if function == "changeover" and not state.next_bundle:
                continue
            heartbeat = self._home.heartbeat(function).resolve()
            yield ProcessSpec(
                function,
                [sys.executable, "-m", "local.schedule", function, str(seconds), str(heartbeat)],
                _ours(environment),
                functools.partial(_heartbeat_probe, heartbeat, _STALE_SECONDS + schedule.TIMEOUT_SECONDS),
            )

    def _api(self, state: RunState, queues: resources.Queues | None) -> ProcessSpec:
        environment = state.environment()
        if queues is not None:
            environment["MAGPIE_PROBE_QUEUE_URL"] = queues.work["probe"]
        return ProcessSpec(
            "api",
            [sys.executable, "-m", "local.api", str(state.ports["grpc"]), str(state.ports["http"])],
            _ours(environment),
            lambda: _grpc_probe(state.grpc_address),
            "grpc",
        )


def _send_lost_again(state: RunState, queues: resources.Queues, queues_are_new: bool, tell: Tell) -> None:
    """Queues are lost when AWS is killed; pictures that have arrived go on from the ledger and the bucket."""
    with connect(state.redis_url) as redis:
        swept = sweep(
            Catalogue(redis),
            Uploads(resources.client("s3", state.aws_url), BUCKET),
            resources.client("sqs", state.aws_url),
            queues.work[STAGES[0]],
            0.0 if queues_are_new else OLDER_THAN_SECONDS,
        )
    if swept.sent:
        tell(f"{swept.sent} pictures whose events were lost are on their way again")


def _ours(environment: dict[str, str]) -> dict[str, str]:
    """Powertools without X-Ray, and the folder in which `local` and `functions` lie."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    return environment | {"POWERTOOLS_TRACE_DISABLED": "true", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _heartbeat_probe(heartbeat: Path, stale_seconds: float = _STALE_SECONDS) -> str:
    try:
        age = time.time() - heartbeat.stat().st_mtime
    except FileNotFoundError:
        return "not ready"
    return "" if age < stale_seconds else f"no sign of life for {age:.0f} s"


def _grpc_probe(address: str) -> str:
    with grpc.insecure_channel(address) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # its stubs lack the methods
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "" if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"
