"""Each customer's ranking configs: on S3 for good, in Redis for speed.

`customers/CUSTOMER/ranking/current.json` is the config in force. A conditional put replaces it: that is the
one moment at which an update happens. Before it, the old one is filed as
`customers/CUSTOMER/ranking/00000001.json`, which never changes. So a writer that dies leaves either the old
config in force or the new one, and a version that was never in force cannot be read.

Before a customer's first put, the config that the bundle in use has for it is in force, else the built-in
default; both as version 0. That is never cached outside the process, nor for another bundle: during a
change-over two bundles serve.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from google.protobuf import json_format

from magpie.errors import Aborted, NotFound, Unavailable
from magpie.ranking.config import checksum, default_config
from magpie.store.aws_connection import aws_answers
from magpie.store.last_known import ASK_AGAIN_SECONDS, Known, LastKnown, known_since
from magpie.store.redis_connection import redis_answers
from magpie.store.redis_keys import customer_key
from magpie.v1.ranking_config_pb2 import RankingConfig

FRESH_SECONDS = 1.0  # for so long a process uses a config without asking Redis
CACHED_SECONDS = 300  # and Redis without asking S3
_ATTEMPTS = 5  # at a put that others overtake
BundledConfigs = Callable[[str], Mapping[str, RankingConfig]]  # of a bundle: customer -> config
_KEEP_NEWER = Path(__file__).with_name("lua") / "keep_newer.lua"


class RankingConfigs:
    """`s3` is a boto3 client; `bundled` gives the configs that a bundle brings. Methods take its id.

    Every method but `current` raises Unavailable while S3 or Redis does not answer.
    """

    def __init__(
        self, s3: Any, bucket: str, client: redis.Redis, bundled: BundledConfigs = lambda _bundle: {}
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._redis: Any = client
        self._keep_newer = client.register_script(_KEEP_NEWER.read_text())
        self._bundled = bundled
        self._known: LastKnown[tuple[str, str], RankingConfig] = LastKnown()  # by customer and bundle

    def current(self, customer: str, bundle: str = "") -> RankingConfig:
        """The config in force, at most FRESH_SECONDS late. Read only.

        While Redis does not answer, S3 is asked, less often (ASK_AGAIN_SECONDS); while S3 does not answer
        either, the config that was last known holds for AWAY_SECONDS. Raises Unavailable if there is none.
        """
        return self._known.get((customer, bundle), lambda: self._asked(customer, bundle))

    def get(self, customer: str, version: int = 0, bundle: str = "") -> RankingConfig:
        """One version, as S3 has it; 0: the one in force. Raises NotFound."""
        config, _ = self._in_force(customer, bundle)
        if version in (0, config.version):
            return config
        return _parsed(self._read(_version_key(customer, version))[0])

    def put(
        self, customer: str, config: RankingConfig, expected_version: int | None = None, bundle: str = ""
    ) -> RankingConfig:
        """Put a validated config in force. Returns it with its version and checksum.

        One that equals the config in force makes no new version. Raises Aborted if `expected_version` is not
        in force, or if other writers keep winning.
        """
        for _ in range(_ATTEMPTS):
            old, etag = self._in_force(customer, bundle)
            # Also where nothing is written: an earlier put may have died before it came to this.
            self._cache(customer, old)
            if expected_version is not None and expected_version != old.version:
                raise Aborted(
                    f"expected_version: is {expected_version}, but version {old.version} is in force: "
                    "get it, apply your change to it and put that"
                )
            if checksum(config) == checksum(old):
                return old
            new = RankingConfig()
            new.CopyFrom(config)
            new.version, new.checksum = old.version + 1, checksum(config)
            try:
                self._replace(customer, old, etag, new)
            except Aborted:
                continue
            self._cache(customer, new)
            self._known.put((customer, bundle), known_since(time.monotonic(), new, FRESH_SECONDS))
            return new
        raise Aborted(f"the ranking config of {customer} is being changed by others: try again")

    def _asked(self, customer: str, bundle: str) -> Known[RankingConfig]:
        asked, seconds = time.monotonic(), FRESH_SECONDS
        try:
            config = self._cached(customer, bundle)
            last = self._known.last((customer, bundle))
            if last is not None and config.version < last.version:  # put while Redis was away
                config, _ = self._in_force(customer, bundle)
                self._cache(customer, config)
        except Unavailable:
            config, _ = self._in_force(customer, bundle)
            asked, seconds = time.monotonic(), ASK_AGAIN_SECONDS
        return known_since(asked, config, seconds)

    def _cached(self, customer: str, bundle: str) -> RankingConfig:
        """From Redis, which gets it from S3 if need be."""
        with redis_answers():
            cached = self._redis.hget(_cache_key(customer), "config")
        if cached is None:
            config, _ = self._in_force(customer, bundle)
            self._cache(customer, config)
            return config
        config = RankingConfig.FromString(cached)
        return config if config.version else self._before_the_first_put(customer, bundle)

    def _in_force(self, customer: str, bundle: str) -> tuple[RankingConfig, str]:
        """The config in force and its ETag; none before the first put."""
        try:
            text, etag = self._read(_current_key(customer))
        except NotFound:
            return self._before_the_first_put(customer, bundle), ""
        return _parsed(text), etag

    def _before_the_first_put(self, customer: str, bundle: str) -> RankingConfig:
        config = RankingConfig()
        config.CopyFrom(self._bundled(bundle).get(customer) or default_config())
        config.version, config.checksum = 0, checksum(config)
        return config

    def _replace(self, customer: str, old: RankingConfig, etag: str, new: RankingConfig) -> None:
        """Raises Aborted if `old` is no longer in force."""
        if not etag:
            self._write(_current_key(customer), new, IfNoneMatch="*")
            return
        with suppress(Aborted):  # another writer has filed it already
            self._write(_version_key(customer, old.version), old, IfNoneMatch="*")
        try:
            self._write(_current_key(customer), new, IfMatch=etag)
        except NotFound as error:  # S3 says so, and not 412, where the object is gone
            raise Aborted(f"the ranking config of {customer} was removed meanwhile") from error

    def _cache(self, customer: str, config: RankingConfig) -> None:
        """Version 0 says only that there has been no put."""
        config = config if config.version else RankingConfig()
        with redis_answers():
            self._keep_newer(
                [_cache_key(customer)], [config.version, config.SerializeToString(), CACHED_SECONDS]
            )

    def _read(self, key: str) -> tuple[bytes, str]:
        with aws_answers(f"ranking config {key}"):
            answer = self._s3.get_object(Bucket=self._bucket, Key=key)
            return answer["Body"].read(), answer["ETag"]

    def _write(self, key: str, config: RankingConfig, **condition: str) -> None:
        body = json_format.MessageToJson(config, preserving_proto_field_name=True).encode()
        with aws_answers(f"ranking config {key}"):
            self._s3.put_object(
                Bucket=self._bucket, Key=key, Body=body, ContentType="application/json", **condition
            )


def _parsed(text: bytes) -> RankingConfig:
    return json_format.Parse(text, RankingConfig())


def _current_key(customer: str) -> str:
    return f"customers/{customer}/ranking/current.json"


def _version_key(customer: str, version: int) -> str:
    return f"customers/{customer}/ranking/{version:08d}.json"


def _cache_key(customer: str) -> str:
    return customer_key(customer, "ranking")
