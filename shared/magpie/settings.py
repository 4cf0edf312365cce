"""All settings, read from the environment in this one place.

| variable | meaning | default |
|---|---|---|
| MAGPIE_REDIS_URL | Redis or Valkey with the catalogue | redis://127.0.0.1:6379/0 |
| MAGPIE_ENGINE | finds neighbours: `compact` in process, `redis` by a server's own search | compact |
| MAGPIE_SEARCH_REDIS_URL | `redis` engine: the server or cluster with search | MAGPIE_REDIS_URL |
| MAGPIE_SEARCH_INDEX | `redis` engine: `hnsw`, a graph, or `flat`, which compares with all, exactly | hnsw |
| MAGPIE_BUCKET | bucket of uploads and ranking configs | magpie |
| MAGPIE_BUNDLE | folder of the bundle in use | the default bundle |
| MAGPIE_NEXT_BUNDLE | folder of the bundle that a change-over goes to, beside it | none |
| MAGPIE_STAGES | api function: `local` runs the stages in process, `lambda` invokes the others | local |
| MAGPIE_FUNCTION_PREFIX | functions are named PREFIX-detection and so on | magpie |
| MAGPIE_NEXT_QUEUE_URL | queue that takes what this function's events become | none |
| MAGPIE_PARKING_QUEUE_URL | dead-letter queue of this function's own queue | none |
| MAGPIE_MAX_RECEIVES | after so many failed attempts an event is parked | 5 |
| MAGPIE_CACHE | folder on the local disk for snapshots of the index | `magpie` in the temporary one |
| MAGPIE_COMPACT_CHANGES | an index with so many changes is compacted; at most 50000 | 20000 |
| MAGPIE_COMPACT_SECONDS | and one with a change that is so old | 900 |
| MAGPIE_PROBE_QUEUE_URL | queue of the recall probe; none: no search is sampled | none |
| MAGPIE_PROBE_RATE | share of the searches that are answered exactly as well, later, 0 to 1 | 0.01 |
| MAGPIE_THREADS | threads of one model run | 2 |
| AWS_ENDPOINT_URL | a local AWS; buckets are named in the path then, not in the host | none |
| AWS_REGION and the other AWS_* | as boto3 reads them | |
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from magpie.errors import FailedPrecondition

# In a checkout bundles/ lies beside shared/; in a Lambda layer beside python/.
_BUNDLE_FOLDERS = (
    Path(__file__).resolve().parents[2] / "bundles" / "default",
    Path("/opt/bundles/default"),
)


# The change stream keeps twice as many: a reader of a new snapshot must find there what came since.
_MOST_CHANGES = 50_000


def default_bundle() -> Path:
    """Folder of the committed bundle."""
    return next((folder for folder in _BUNDLE_FOLDERS if folder.is_dir()), _BUNDLE_FOLDERS[0])


@dataclass(frozen=True)
class Settings:
    """One process's settings."""

    redis_url: str
    bucket: str
    bundle: Path
    stages: Literal["local", "lambda"] = "local"
    function_prefix: str = "magpie"
    next_queue_url: str = ""
    parking_queue_url: str = ""
    max_receives: int = 5
    probe_queue_url: str = ""
    probe_rate: float = 0.01
    threads: int = 2
    next_bundle: Path | None = None
    cache: Path = Path(tempfile.gettempdir(), "magpie")
    compact_changes: int = 20_000
    compact_seconds: int = 900
    s3_addressing: Literal["virtual", "path"] = "virtual"
    engine: Literal["compact", "redis"] = "compact"
    search_redis_url: str = ""
    search_index: Literal["flat", "hnsw"] = "hnsw"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Raises FailedPrecondition naming a variable whose value is no good."""
        env = os.environ if environment is None else environment
        redis_url = env.get("MAGPIE_REDIS_URL", "redis://127.0.0.1:6379/0")
        return cls(
            redis_url=redis_url,
            bucket=env.get("MAGPIE_BUCKET", "magpie"),
            bundle=Path(env["MAGPIE_BUNDLE"]) if env.get("MAGPIE_BUNDLE") else default_bundle(),
            stages=_one_of(env, "MAGPIE_STAGES", ("local", "lambda")),
            function_prefix=env.get("MAGPIE_FUNCTION_PREFIX", "magpie"),
            next_queue_url=env.get("MAGPIE_NEXT_QUEUE_URL", ""),
            parking_queue_url=env.get("MAGPIE_PARKING_QUEUE_URL", ""),
            max_receives=_positive(env, "MAGPIE_MAX_RECEIVES", 5),
            probe_queue_url=env.get("MAGPIE_PROBE_QUEUE_URL", ""),
            probe_rate=_share(env, "MAGPIE_PROBE_RATE", 0.01),
            threads=_positive(env, "MAGPIE_THREADS", 2),
            next_bundle=Path(env["MAGPIE_NEXT_BUNDLE"]) if env.get("MAGPIE_NEXT_BUNDLE") else None,
            cache=Path(env.get("MAGPIE_CACHE") or Path(tempfile.gettempdir(), "magpie")),
            compact_changes=_positive(env, "MAGPIE_COMPACT_CHANGES", 20_000, most=_MOST_CHANGES),
            compact_seconds=_positive(env, "MAGPIE_COMPACT_SECONDS", 900),
            s3_addressing="path" if env.get("AWS_ENDPOINT_URL") else "virtual",
            engine=_one_of(env, "MAGPIE_ENGINE", ("compact", "redis")),
            search_redis_url=env.get("MAGPIE_SEARCH_REDIS_URL") or redis_url,
            search_index=_one_of(env, "MAGPIE_SEARCH_INDEX", ("hnsw", "flat")),
        )


def _one_of(env: Mapping[str, str], name: str, choices: tuple[str, str]) -> Any:
    """The first one is the default."""
    value = env.get(name) or choices[0]
    if value not in choices:
        raise FailedPrecondition(f"{name} must be `{choices[0]}` or `{choices[1]}`, got {value!r}")
    return value


def _positive(env: Mapping[str, str], name: str, default: int, most: int | None = None) -> int:
    text = env.get(name, str(default))
    if not text.isdecimal() or int(text) < 1 or (most is not None and int(text) > most):
        allowed = "of at least 1" if most is None else f"from 1 to {most}"
        raise FailedPrecondition(f"{name} must be a whole number {allowed}, got {text!r}")
    return int(text)


def _share(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, str(default))
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise FailedPrecondition(f"{name} must be a number from 0 to 1, got {text!r}")
    return share
