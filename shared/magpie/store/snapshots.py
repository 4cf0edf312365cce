"""Every customer's snapshots: on S3 for good, on the local disk to be mapped.

`customers/CUSTOMER/index/BUNDLE/current.json` names the newest snapshot and the one before it. A conditional
put replaces it: that is the one moment at which a snapshot comes into use. The files beside it never change.
A file that no pointer names is a compaction's that is at work or has died; `sweep` removes it after an hour.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from aws_lambda_powertools import Logger
from boto3.s3.transfer import TransferConfig

from magpie.errors import Aborted, NotFound, Unavailable
from magpie.index.section_file import Damaged, SectionFile
from magpie.index.snapshot import Snapshot
from magpie.store.aws_connection import aws_answers
from magpie.store.snapshot_disk import make_room

ORPHANED_AFTER_SECONDS = 3600.0
_FILE = re.compile(r"(\d+)-[0-9a-f]{16}\.snapshot")
_TRANSFER = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=32 << 20, max_concurrency=4)
_ROOM_FOR_NEWS = 1 << 30  # bytes of a million objects that the snapshot before has not
_SPARE = 16 << 20  # bytes left free for others
_logger = Logger(service="index")


@dataclass(frozen=True)
class Pointer:
    """What `current.json` says."""

    generation: int = 0  # 0: there is no snapshot
    file: str = ""
    previous: str = ""  # file of the snapshot before it
    cursor: str = ""  # place in the change stream: later changes are not in the snapshot
    etag: str = ""  # not in the file: it is S3's own


class Snapshots:
    """`s3` is a boto3 client; `folder` is on the local disk, and processes of one machine may share it.

    Every method raises Unavailable while S3 does not answer.
    """

    def __init__(self, s3: Any, bucket: str, folder: Path) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._folder = folder

    def pointer(self, customer: str, bundle: str) -> Pointer:
        """The snapshots in use."""
        key = f"{_prefix(customer, bundle)}current.json"
        try:
            with aws_answers(f"pointer {key}"):
                answer = self._s3.get_object(Bucket=self._bucket, Key=key)
                return Pointer(**json.loads(answer["Body"].read()), etag=answer["ETag"])
        except NotFound:
            return Pointer()

    def newest(self, customer: str, bundle: str) -> Snapshot | None:
        """The newest snapshot that is whole; None: there is none.

        A damaged one is set aside, with a line in the log, and the one before it taken. While S3 is away, the
        newest on the local disk is.
        """
        for _ in range(3):  # a file may be swept between the pointer's reading and its own
            try:
                pointer = self.pointer(customer, bundle)
                for file in filter(None, (pointer.file, pointer.previous)):
                    with suppress(Damaged):
                        return self._open(customer, bundle, file)
                if not pointer.file:
                    return None
            except NotFound:
                continue
            except Unavailable:
                local = self.newest_on_disk(customer, bundle)
                if local is None:
                    raise
                return local
        raise Unavailable(f"the snapshots of {customer} under {bundle} cannot be read: see the log")

    def newest_on_disk(self, customer: str, bundle: str) -> Snapshot | None:
        """Without asking S3."""
        folder = self._local(customer, bundle)
        for path in sorted(folder.glob("*.snapshot"), key=_generation_of, reverse=True):
            with suppress(Damaged, OSError):
                return self._open_local(path)
        return None

    def new_path(self, customer: str, bundle: str, generation: int) -> Path:
        """Where a compaction writes its file before it is published, with room for it."""
        before = max(map(_size_of, self._local(customer, bundle).glob("*.snapshot")), default=0)
        make_room(self._folder, 2 * before + _ROOM_FOR_NEWS)
        return self._local(customer, bundle) / f"{generation}-{os.urandom(8).hex()}.snapshot"

    def upload(self, customer: str, bundle: str, path: Path) -> None:
        """Put a new file beside those in use; nobody sees it yet."""
        key = _prefix(customer, bundle) + path.name
        with aws_answers(f"snapshot {key}"):
            self._s3.upload_file(str(path), self._bucket, key, Config=_TRANSFER)

    def swap(self, customer: str, bundle: str, path: Path, replaced: Pointer) -> Pointer:
        """Put an uploaded file in use in place of what `replaced` says. Raises Aborted if another one was."""
        key = f"{_prefix(customer, bundle)}current.json"
        cursor = str(SectionFile(path).facts["cursor"])
        pointer = Pointer(_generation_of(path), path.name, replaced.file, cursor)
        content = {name: value for name, value in asdict(pointer).items() if name != "etag"}
        condition = {"IfMatch": replaced.etag} if replaced.etag else {"IfNoneMatch": "*"}
        try:
            with aws_answers(f"pointer {key}"):
                self._s3.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=json.dumps(content).encode(),
                    ContentType="application/json",
                    **condition,
                )
        except NotFound as error:  # S3 says so, and not 412, where the object is gone
            raise Aborted(f"pointer {key} was removed meanwhile") from error
        return pointer

    def sweep(self, customer: str, bundle: str, pointer: Pointer) -> list[str]:
        """Remove what no pointer names: files of former generations, and orphans. Returns their names."""
        removed = []
        for path in self._local(customer, bundle).glob("*.snapshot"):
            if path.name not in (pointer.file, pointer.previous) and _age_of(path) > ORPHANED_AFTER_SECONDS:
                path.unlink(missing_ok=True)
        for key, modified in self._keys(customer, bundle):
            name = key.rsplit("/", 1)[1]
            if not _FILE.fullmatch(name) or name in (pointer.file, pointer.previous):
                continue
            orphaned = time.time() - modified.timestamp() > ORPHANED_AFTER_SECONDS
            if _generation_of(Path(name)) < pointer.generation or orphaned:
                self._delete(key)
                removed.append(name)
        return removed

    def drop(self, customer: str, bundle: str) -> None:
        """Remove all snapshots of a bundle; the pointer goes first, so that no reader begins with them."""
        self._delete(f"{_prefix(customer, bundle)}current.json")
        for key, _ in self._keys(customer, bundle):
            self._delete(key)
        for path in self._local(customer, bundle).glob("*"):
            path.unlink(missing_ok=True)

    def _keys(self, customer: str, bundle: str) -> list[tuple[str, datetime]]:
        prefix = _prefix(customer, bundle)
        with aws_answers(f"snapshots {prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return [
                (item["Key"], item["LastModified"]) for page in pages for item in page.get("Contents", ())
            ]

    def _delete(self, key: str) -> None:
        with aws_answers(f"snapshot {key}"):
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def _open(self, customer: str, bundle: str, file: str) -> Snapshot:
        """From the local disk, where it is whole there; else from S3. Raises Damaged, NotFound."""
        path = self._local(customer, bundle) / file
        if path.exists():
            with suppress(Damaged, OSError):
                return self._open_local(path)
        self._download(_prefix(customer, bundle) + file, path)
        return self._open_local(path)

    def _open_local(self, path: Path) -> Snapshot:
        try:
            with suppress(OSError):
                os.utime(path)  # those opened longest ago are the first to make room
            return Snapshot(path)
        except Damaged as error:
            _logger.warning("snapshot set aside: it is damaged", file=path.name, reason=str(error))
            with suppress(OSError):
                path.rename(path.with_suffix(".damaged"))
            raise

    def _download(self, key: str, path: Path) -> None:
        with aws_answers(f"snapshot {key}"):
            size = self._s3.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
        part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
        try:
            make_room(self._folder, size + _SPARE)
            path.parent.mkdir(parents=True, exist_ok=True)
            with aws_answers(f"snapshot {key}"):
                self._s3.download_file(self._bucket, key, str(part), Config=_TRANSFER)
            part.replace(path)
        except OSError as error:  # the disk is full
            raise Unavailable(f"snapshot {key} cannot be kept in {self._folder}: {error}") from error
        finally:
            with suppress(OSError):
                part.unlink()

    def _local(self, customer: str, bundle: str) -> Path:
        return self._folder / customer / bundle


def _prefix(customer: str, bundle: str) -> str:
    return f"customers/{customer}/index/{bundle}/"


def _generation_of(path: Path) -> int:
    match = _FILE.fullmatch(path.name)
    return int(match[1]) if match else -1


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process made room
        return 0


def _age_of(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
