"""A file of named arrays that are mapped rather than read, each with a checksum.

    magic, arrays (each at a multiple of 64 bytes), table of contents (JSON), its length and checksum, magic

The table of contents stands at the end, so that a file is written in one pass. Checksums are XXH3 (Collet):
they tell damage, not forgery. A file is never changed once it is written.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

MAGIC = b"MAGPIE-1"
_ALIGNED = 64  # bytes: a cache line
_FOOTER = struct.Struct("<QQ8s")  # length and checksum of the table of contents, magic
_READ = 1 << 22  # bytes at once while checking


class Damaged(Exception):
    """A file is not what was written: cut off, altered, or something else."""


class SectionWriter:
    """Writes `path` as a context manager; on an exception nothing is left behind."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.{os.getpid()}.part")
        self._contents: dict[str, Any] = {"facts": dict(facts), "sections": {}}

    def __enter__(self) -> Self:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._part.open("wb")
        self._stream.write(MAGIC)
        return self

    def add(self, name: str, array: NDArray[Any]) -> None:
        """One array."""
        self.add_blocks(name, [array], array.dtype, array.shape[1:])

    def add_blocks(
        self, name: str, blocks: Iterable[NDArray[Any]], dtype: np.dtype[Any], shape: tuple[int, ...] = ()
    ) -> None:
        """One array of rows of `shape` that comes in blocks of rows."""
        self._stream.write(b"\0" * (-self._stream.tell() % _ALIGNED))
        start, rows, checksum = self._stream.tell(), 0, xxhash.xxh3_64()
        for block in blocks:
            content = memoryview(np.ascontiguousarray(block, dtype).view(np.uint8).reshape(-1))  # type: ignore[arg-type]
            self._stream.write(content)
            checksum.update(content)
            rows += len(block)
        described = dtype.descr if dtype.names else dtype.str
        self._contents["sections"][name] = {
            "start": start,
            "dtype": described,
            "shape": [rows, *shape],
            "checksum": checksum.hexdigest(),
        }

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stream:
            if kind is None:
                contents = json.dumps(self._contents).encode()
                self._stream.write(contents)
                self._stream.write(_FOOTER.pack(len(contents), xxhash.xxh3_64_intdigest(contents), MAGIC))
                self._stream.flush()
                os.fsync(self._stream.fileno())
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)


class SectionFile:
    """A file that SectionWriter wrote. Threads may share it."""

    def __init__(self, path: Path) -> None:
        """Raises Damaged if it is not whole, OSError if it cannot be read. The arrays are not checked yet."""
        self.path = path
        with path.open("rb") as stream:
            self.size = os.fstat(stream.fileno()).st_size
            contents = self._table_of_contents(stream.fileno())
            self._map = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
            self._descriptor = os.dup(stream.fileno())
        self.facts: Mapping[str, Any] = contents["facts"]
        self._sections: Mapping[str, Any] = contents["sections"]

    def _table_of_contents(self, descriptor: int) -> Any:
        if self.size < len(MAGIC) + _FOOTER.size:
            raise Damaged(f"{self.path}: {self.size} bytes are no snapshot")
        footer = os.pread(descriptor, _FOOTER.size, self.size - _FOOTER.size)
        length, checksum, magic = _FOOTER.unpack(footer)
        if magic != MAGIC or os.pread(descriptor, len(MAGIC), 0) != MAGIC:
            raise Damaged(f"{self.path}: cut off, or no snapshot")
        contents = os.pread(descriptor, length, max(0, self.size - _FOOTER.size - length))
        if xxhash.xxh3_64_intdigest(contents) != checksum:
            raise Damaged(f"{self.path}: its table of contents does not have its checksum")
        return json.loads(contents)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    @property
    def names(self) -> list[str]:
        """Of the arrays."""
        return list(self._sections)

    def array(self, name: str) -> NDArray[Any]:
        """Mapped: its pages are read when they are touched, and shared between processes."""
        section = self._sections[name]
        dtype, shape = _dtype(section), tuple(section["shape"])
        count = int(np.prod(shape))
        return np.frombuffer(self._map, dtype, count, section["start"]).reshape(shape)

    def read_rows(self, name: str, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Some rows, copied without mapping their pages: a process that looks up few of many stays small."""
        section = self._sections[name]
        dtype = _dtype(section)
        size = dtype.itemsize * int(np.prod(section["shape"][1:]))
        read, descriptor, start = os.pread, self._descriptor, section["start"]
        content = b"".join([read(descriptor, size, start + size * row) for row in rows.tolist()])
        return np.frombuffer(content, dtype).reshape(len(rows), *section["shape"][1:])

    def read_bytes(self, name: str, start: int, stop: int) -> bytes:
        """Part of an array of bytes, copied in the same way."""
        return os.pread(self._descriptor, stop - start, self._sections[name]["start"] + start)

    def check(self) -> None:
        """Raises Damaged, naming the array, unless every array has its checksum."""
        buffer = memoryview(bytearray(_READ))
        for name, section in self._sections.items():
            left = _dtype(section).itemsize * int(np.prod(section["shape"]))
            at, checksum = section["start"], xxhash.xxh3_64()
            while left > 0:
                read = os.preadv(self._descriptor, [buffer[: min(left, _READ)]], at)
                if not read:
                    break
                checksum.update(buffer[:read])
                at, left = at + read, left - read
            if left or checksum.hexdigest() != section["checksum"]:
                raise Damaged(f"{self.path}: `{name}` does not have its checksum")


def _dtype(section: Mapping[str, Any]) -> np.dtype[Any]:
    described = section["dtype"]
    if isinstance(described, str):
        return np.dtype(described)
    return np.dtype([(field[0], field[1], *[tuple(shape) for shape in field[2:]]) for field in described])
