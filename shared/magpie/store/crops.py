"""Crops in Redis, for stages that are functions of their own.

`magpie:{CUSTOMER}:crops:BUNDLE:SHA256` is a hash: box (16 bytes) -> square (size x size x 3 bytes). One photo
is one key, so every call is one round trip, on a cluster too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import numpy as np
import redis

from magpie.geometry import Box
from magpie.store.redis_connection import redis_answers
from magpie.store.redis_keys import customer_key
from magpie.vision.crop_store import box_key
from magpie.vision.preprocess import Pixels

TIME_TO_LIVE = 15 * 60  # seconds

_log = logging.getLogger(__name__)


class RedisCropStore:
    """`CropStore` over Redis or Valkey. `bundle` and `size` (px) are those of the embedder."""

    def __init__(self, client: redis.Redis, bundle: str, size: int, time_to_live: int = TIME_TO_LIVE) -> None:
        self._client = client
        self._bundle = bundle
        self._shape = (size, size, 3)
        self._time_to_live = time_to_live

    def put(self, customer: str, sha256: str, boxes: Sequence[Box], squares: Pixels) -> None:
        """As the port says. A full Redis keeps nothing, which is logged. Raises Unavailable."""
        key = self._key(customer, sha256)
        fields = {box_key(box): square.tobytes() for box, square in zip(boxes, squares, strict=True)}
        with redis_answers(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hset(key, mapping=fields)  # type: ignore[arg-type]  # bytes are fine as fields
            pipeline.expire(key, self._time_to_live)
            try:
                pipeline.execute()
            except redis.exceptions.OutOfMemoryError as error:
                _log.warning("crops of %s not kept, embedding will decode again: %s", sha256, error)

    def get(self, customer: str, sha256: str, boxes: Sequence[Box]) -> Pixels | None:
        """As the port says. Raises Unavailable."""
        fields = [box_key(box) for box in boxes]
        if not fields:
            return None
        with redis_answers():
            values = cast("list[bytes | None]", self._client.hmget(self._key(customer, sha256), fields))
        squares = [value for value in values if value is not None]
        if len(squares) < len(fields):
            return None
        return np.frombuffer(b"".join(squares), np.uint8).reshape(len(squares), *self._shape)

    def discard(self, customer: str, sha256: str) -> None:
        """As the port says. Raises Unavailable."""
        with redis_answers():
            self._client.delete(self._key(customer, sha256))

    def _key(self, customer: str, sha256: str) -> str:
        return customer_key(customer, f"crops:{self._bundle}:{sha256}")
