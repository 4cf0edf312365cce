"""A folder in S3 and its copy on this machine; only what differs travels.

Files are compared by size and ETag. Of an object that went up in one piece the ETag is its MD5, of one in
parts the MD5 of the parts' MD5s, with their count; parts are PART_BYTES, which is also what the AWS command
line uses. An ETag of another kind (KMS, other parts) only costs a needless copy.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig

from magpie.errors import InvalidArgument, MagpieError, Unavailable
from training.job.aws import TRANSFERS_AT_ONCE, answers

PART_BYTES = 8 * 2**20
PARTIAL = ".partial"  # suffix of a file that is still being written
# Our own threads are over files; a single large file has some for its parts, too.
_TRANSFER = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)


@dataclass(frozen=True)
class S3Folder:
    """`s3://bucket/prefix/`. `prefix` is empty or ends with a slash."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str, field: str = "folder") -> S3Folder:
        """From `s3://BUCKET/PREFIX`. Raises InvalidArgument."""
        scheme, _, rest = text.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme != "s3" or not bucket or not prefix.strip("/"):
            raise InvalidArgument(field, f"{text!r} must read s3://BUCKET/FOLDER")
        return cls(bucket, prefix.strip("/") + "/")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix.rstrip('/')}"

    def key(self, name: str) -> str:
        """Key of a file that is called `name` in the folder."""
        return self.prefix + name


@dataclass(frozen=True)
class S3File:
    """One object of a folder, by its name in it."""

    name: str
    size: int  # bytes
    etag: str


@dataclass(frozen=True)
class Transfer:
    """How far a copy is, or what it did."""

    files: int = 0  # to copy
    size: int = 0  # of them, bytes
    files_done: int = 0
    size_done: int = 0
    unchanged: int = 0  # files that were there already


Watcher = Callable[[Transfer], None]


def listing(s3: Any, folder: S3Folder) -> dict[str, S3File]:
    """Name -> file of everything in the folder. Raises Magpie's errors."""
    found = {}
    with answers(str(folder)):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=folder.bucket, Prefix=folder.prefix)
        for item in itertools.chain.from_iterable(page.get("Contents", []) for page in pages):
            name = item["Key"].removeprefix(folder.prefix)
            if name and not name.endswith("/"):  # some tools keep a marker where a folder begins
                found[name] = S3File(name, int(item["Size"]), item["ETag"].strip('"'))
    return found


def fetch(
    s3: Any, folder: S3Folder, into: Path, *, without: Iterable[str] = (), watch: Watcher | None = None
) -> Transfer:
    """Make `into` the same as the folder: copy what is missing or differs, remove what is not in it.

    `without` are names that stay away. A file is there whole or not at all, so the next fetch goes on with an
    interrupted one. Raises InvalidArgument for a name that would lie outside `into`.
    """
    files = {name: file for name, file in listing(s3, folder).items() if name not in set(without)}
    for name in files:
        _check_name(name, folder)
    into.mkdir(parents=True, exist_ok=True)
    for name in set(_names_in(into)) - files.keys():
        (into / name).unlink()
    wanted = [file for file in files.values() if not same(into / file.name, file)]

    def copy(file: S3File) -> int:
        path = into / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + PARTIAL)
        with answers(f"{folder}/{file.name}"):
            s3.download_file(folder.bucket, folder.key(file.name), str(partial), Config=_TRANSFER)
        partial.replace(path)
        return file.size

    planned = Transfer(len(wanted), sum(file.size for file in wanted), unchanged=len(files) - len(wanted))
    return _run(copy, wanted, planned, watch)


def push(
    s3: Any, root: Path, names: Iterable[str], folder: S3Folder, *, watch: Watcher | None = None
) -> Transfer:
    """Copy those files of `root` that the folder has not, or has otherwise. Nothing there is removed."""
    names = sorted(names)
    there = listing(s3, folder)
    wanted = [name for name in names if name not in there or not same(root / name, there[name])]

    def copy(name: str) -> int:
        upload(s3, root / name, folder, name)
        return (root / name).stat().st_size

    size = sum((root / name).stat().st_size for name in wanted)
    return _run(copy, wanted, Transfer(len(wanted), size, unchanged=len(names) - len(wanted)), watch)


def upload(s3: Any, path: Path, folder: S3Folder, name: str) -> None:
    """One file; the object changes as a whole when its last byte is there. Raises Magpie's errors."""
    try:
        with answers(f"{folder}/{name}"):
            s3.upload_file(str(path), folder.bucket, folder.key(name), Config=_TRANSFER)
    except S3UploadFailedError as error:  # it hides the cause, which is in its text
        kind = MagpieError if "AccessDenied" in str(error) else Unavailable
        raise kind(f"{folder}/{name}: {error}") from error


def read(s3: Any, folder: S3Folder, name: str) -> bytes:
    """A small file. Raises NotFound."""
    with answers(f"{folder}/{name}"):
        body: bytes = s3.get_object(Bucket=folder.bucket, Key=folder.key(name))["Body"].read()
        return body


def write(s3: Any, folder: S3Folder, name: str, body: bytes) -> None:
    """A small file."""
    with answers(f"{folder}/{name}"):
        s3.put_object(Bucket=folder.bucket, Key=folder.key(name), Body=body)


def same(path: Path, file: S3File) -> bool:
    """Is the file at `path` what S3 has?"""
    return path.is_file() and path.stat().st_size == file.size and etag(path, like=file.etag) == file.etag


def etag(path: Path, *, like: str) -> str:
    """The ETag that S3 gives a file's bytes, in one piece or in parts as that of `like`."""
    if "-" not in like:
        with path.open("rb") as file:
            return hashlib.file_digest(file, _md5).hexdigest()
    parts = [_md5(part).digest() for part in _parts(path)]
    return f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}"


def fingerprint(files: Mapping[str, S3File]) -> str:
    """SHA-256 of what a folder holds: names, sizes, ETags."""
    lines = sorted(f"{file.name}\t{file.size}\t{file.etag}\n" for file in files.values())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def files_of(root: Path) -> list[str]:
    """Names of the files below `root`, `/` between folders; none that is hidden or half written. Sorted."""
    return sorted(
        name
        for name in _names_in(root)
        if not name.endswith(PARTIAL) and not any(part.startswith(".") for part in PurePosixPath(name).parts)
    )


def _md5(data: bytes = b"") -> Any:
    return hashlib.md5(data, usedforsecurity=False)


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            yield part


def _names_in(root: Path) -> Iterator[str]:
    return (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def _check_name(name: str, folder: S3Folder) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name:
        raise InvalidArgument(str(folder), f"{name!r} is no name that a file here can have")


def _run(copy: Callable[[Any], int], items: list[Any], planned: Transfer, watch: Watcher | None) -> Transfer:
    """Copy the items, several at once; the first error ends it. `copy` answers with the bytes it moved."""
    done = planned
    tell = watch or (lambda _: None)
    tell(done)
    pool = ThreadPoolExecutor(TRANSFERS_AT_ONCE, thread_name_prefix="s3")
    try:
        # Futures are handed out as they are needed: a data set may have a million files.
        rest, running = iter(items), set[Future[int]]()
        while True:
            running |= {
                pool.submit(copy, item)
                for item in itertools.islice(rest, 2 * TRANSFERS_AT_ONCE - len(running))
            }
            if not running:
                return done
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                moved = future.result()
                done = replace(done, files_done=done.files_done + 1, size_done=done.size_done + moved)
            tell(done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
