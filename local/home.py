"""The folder of a local system: its data, its logs, its customers' keys, and what runs where."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

BUCKET = "magpie"
PREFIX = "magpie"
REGION = "us-east-1"


@dataclass(frozen=True)
class Running:
    """A process that was started. `started` tells it from a later one with the same pid."""

    pid: int
    started: float  # seconds since the epoch, by the process table


@dataclass
class RunState:
    """What `magpie up` last started. Ports are kept after `magpie down`, to be used again."""

    ports: dict[str, int] = field(default_factory=dict)
    own_redis_url: str = ""  # the user's own Redis; empty: ours
    processes: dict[str, Running] = field(default_factory=dict)
    snapshots: str = ""  # folder of the home
    engine: str = "compact"
    next_bundle: str = ""  # folder of the bundle to come, for change-overs; empty: there is none
    redis_has_search: bool = False  # ours; it stays, for what the module has written needs the module

    @property
    def redis_url(self) -> str:
        """Where Redis answers."""
        return self.own_redis_url or f"redis://127.0.0.1:{self.ports['redis']}/0"

    @property
    def aws_url(self) -> str:
        """Where the local AWS answers."""
        return f"http://127.0.0.1:{self.ports['aws']}"

    @property
    def grpc_address(self) -> str:
        """Where native gRPC is spoken."""
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def http_url(self) -> str:
        """Where Connect, gRPC-Web and JSON are spoken."""
        return f"http://127.0.0.1:{self.ports['http']}"

    def environment(self) -> dict[str, str]:
        """What every process of this system reads besides its own settings."""
        return {
            "MAGPIE_REDIS_URL": self.redis_url,
            "MAGPIE_ENGINE": self.engine,
            "MAGPIE_BUCKET": BUCKET,
            "MAGPIE_FUNCTION_PREFIX": PREFIX,
            "MAGPIE_CACHE": self.snapshots,
            "MAGPIE_NEXT_BUNDLE": self.next_bundle,
            "AWS_ENDPOINT_URL": self.aws_url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@dataclass(frozen=True)
class Home:
    """Paths of one local system."""

    folder: Path

    @property
    def redis_data(self) -> Path:
        """Redis' append-only file."""
        return self.folder / "data" / "redis"

    @property
    def aws_data(self) -> Path:
        """Objects, queues and rules of the local AWS."""
        return self.folder / "data" / "aws"

    @property
    def snapshots(self) -> Path:
        """The indexes' snapshots, to be mapped; they are in the bucket, too."""
        return self.folder / "data" / "snapshots"

    def log(self, process: str) -> Path:
        """Standard output and error of a process."""
        return self.folder / "logs" / f"{process}.log"

    def heartbeat(self, process: str) -> Path:
        """Touched by a worker as long as it makes progress."""
        return self.folder / "heartbeats" / process

    def key(self, customer: str) -> Path:
        """File with a customer's API key, readable by its owner alone."""
        return self.folder / "keys" / customer

    def make(self) -> None:
        """Create the folders."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self.redis_data, self.aws_data, self.folder / "logs", self.folder / "heartbeats"):
            path.mkdir(parents=True, exist_ok=True)
        (self.folder / "keys").mkdir(mode=0o700, exist_ok=True)

    def run_state(self) -> RunState:
        """What was last written, or nothing yet."""
        try:
            written = json.loads(self._run_file.read_text())
        except FileNotFoundError:
            return RunState(snapshots=str(self.snapshots.resolve()))
        processes = {name: Running(**running) for name, running in written["processes"].items()}
        written |= {"processes": processes, "snapshots": str(self.snapshots.resolve())}
        return RunState(**written)

    def write_run_state(self, state: RunState) -> None:
        """Replace what was written, in one step."""
        draft = self._run_file.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(state), indent=2))
        draft.replace(self._run_file)

    def write_key(self, customer: str, key: str) -> None:
        """Keep a customer's API key; nobody else may read it."""
        path = self.key(customer)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(key + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One `up` or `down` at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def _run_file(self) -> Path:
        return self.folder / "run.json"
