"""Crops on their way from detection to embedding, so that a photo is decoded once.

A store is a shortcut, never the only copy that counts: it may forget at any time, and embedding then decodes
the photo again. Keys hold the customer: knowing a photo's hash must not open another customer's pixels.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from magpie.geometry import Box
from magpie.vision.preprocess import Pixels

_MEMORY = 64 * 1024 * 1024  # bytes: some four hundred crops of 224 px


class CropStore(Protocol):
    """The port. `squares` are (N, size, size, 3) uint8, cut as the embedder wants them, one a box."""

    def put(self, customer: str, sha256: str, boxes: Sequence[Box], squares: Pixels) -> None:
        """Keep the squares of a photo for a short while."""

    def get(self, customer: str, sha256: str, boxes: Sequence[Box]) -> Pixels | None:
        """The squares in the order of `boxes`, or None unless all of them are there."""

    def discard(self, customer: str, sha256: str) -> None:
        """Forget a photo's squares: nobody will ask again."""


def box_key(box: Box) -> bytes:
    """16 bytes that survive the trip through the protos, whose boxes are float32."""
    return np.asarray(box, "<f4").tobytes()


class MemoryCropStore:
    """For stages that share a process. Forgets the photos that were used longest ago."""

    def __init__(self, capacity: int = _MEMORY) -> None:
        self._capacity = capacity  # bytes
        self._size = 0
        self._photos: OrderedDict[tuple[str, str], dict[bytes, Pixels]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, customer: str, sha256: str, boxes: Sequence[Box], squares: Pixels) -> None:
        """As the port says; what alone exceeds the capacity is not kept."""
        kept = {box_key(box): square.copy() for box, square in zip(boxes, squares, strict=True)}
        with self._lock:
            kept = {**self._remove((customer, sha256)), **kept}
            self._photos[customer, sha256] = kept
            self._size += _bytes(kept)
            while self._size > self._capacity:
                self._remove(next(iter(self._photos)))

    def get(self, customer: str, sha256: str, boxes: Sequence[Box]) -> Pixels | None:
        """As the port says."""
        with self._lock:
            kept = self._photos.get((customer, sha256))
            if kept is None:
                return None
            self._photos.move_to_end((customer, sha256))
            found = [kept.get(box_key(box)) for box in boxes]
        squares = [square for square in found if square is not None]
        return np.stack(squares) if squares and len(squares) == len(boxes) else None

    def discard(self, customer: str, sha256: str) -> None:
        """As the port says."""
        with self._lock:
            self._remove((customer, sha256))

    def _remove(self, key: tuple[str, str]) -> dict[bytes, Pixels]:
        kept = self._photos.pop(key, {})
        self._size -= _bytes(kept)
        return kept


def _bytes(kept: dict[bytes, Pixels]) -> int:
    return sum(square.nbytes for square in kept.values())
