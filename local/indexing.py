"""A catalogue through the real upload path, until every picture is indexed or has failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from local.catalogue_file import CatalogueFile, Picture
from local.client import CallFailed, Client, UploadFailed
from magpie.errors import UndecodableImage
from magpie.v1.catalog_pb2 import GetIngestStatusRequest, ImageStatus, UpsertProductsRequest

BATCH = 100  # products a call
UPLOADS_AT_ONCE = 4
WATCHED = 400  # products that are asked after at a time; pictures are indexed about in order
POLL_SECONDS = 0.4
PATIENCE_SECONDS = 600.0  # without any progress
# Of one picture and not of the whole run.
_PICTURE_CODES = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"})
_WANT_UPLOAD = frozenset({ImageStatus.STATE_AWAITING_UPLOAD, ImageStatus.STATE_FAILED})

Item = TypeVar("Item")
Key = tuple[str, str]  # product id, SHA-256


@dataclass(frozen=True)
class Failure:
    """A picture that was not indexed."""

    product_id: str
    image: str  # as the catalogue writes it
    reason: str


@dataclass
class IndexReport:
    """What became of the pictures."""

    pictures: int
    indexed: int = 0
    unchanged: int = 0
    failed: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def settled(self) -> int:
        """Pictures that need no more waiting for."""
        return self.indexed + self.unchanged + len(self.failed)


def index(client: Client, catalogue: CatalogueFile, progress: Callable[[IndexReport], None]) -> IndexReport:
    """Write the products, upload the pictures that the index lacks, wait. Raises CallFailed."""
    start = time.monotonic()
    run = _Run(client, catalogue)
    missing = run.write_products()
    run.count_unchanged(missing)
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        try:
            run.upload(pool, missing)
            moved = time.monotonic()
            while run.pending:
                settled = run.report.settled
                run.look(pool)
                progress(run.report)
                if run.report.settled > settled:
                    moved = time.monotonic()
                elif time.monotonic() - moved > PATIENCE_SECONDS:
                    run.give_up()
                time.sleep(POLL_SECONDS)
        finally:
            pool.shutdown(cancel_futures=True)
    progress(run.report)
    run.report.seconds = time.monotonic() - start
    return run.report


class _Run:
    def __init__(self, client: Client, catalogue: CatalogueFile) -> None:
        self._client = client
        self._catalogue = catalogue
        self._uploads: dict[Key, Future[None]] = {}
        self.pending = {(picture.product_id, picture.sha256): picture for picture in catalogue.pictures}
        self.report = IndexReport(len(self.pending))

    def write_products(self) -> list[Key]:
        """Pictures that the index lacks."""
        missing = []
        for products in _batches(self._catalogue.products):
            upsert = UpsertProductsRequest(products=products)
            for upserted in self._client.call(self._client.catalog.UpsertProducts, upsert).products:
                missing += [(upserted.product_id, sha256) for sha256 in upserted.missing_images]
        return missing

    def count_unchanged(self, missing: list[Key]) -> None:
        """What is neither missing nor on its way was indexed before."""
        there = self.pending.keys() - set(missing)
        for image in self._statuses(sorted({product_id for product_id, _ in there})):
            key = (image.product_id, image.sha256)
            if key in there and image.state == ImageStatus.STATE_INDEXED:
                del self.pending[key]
                self.report.unchanged += 1

    def upload(self, pool: ThreadPoolExecutor, keys: Iterable[Key]) -> None:
        """Begin the uploads of some pictures."""
        for key in keys:
            self._uploads[key] = pool.submit(self._upload, self.pending[key])

    def look(self, pool: ThreadPoolExecutor) -> None:
        """How far are the pictures that were sent first?"""
        refused = {key: self._refusal(key) for key in list(self._uploads) if self._uploads[key].done()}
        for key, reason in refused.items():
            if reason and key in self.pending:
                self._fail(key, reason)
        watched = list(dict.fromkeys(product_id for product_id, _ in self.pending))[:WATCHED]
        for image in self._statuses(watched):
            key = (image.product_id, image.sha256)
            if key not in self.pending:
                continue
            if image.state == ImageStatus.STATE_INDEXED:
                del self.pending[key]
                self.report.indexed += 1
            elif image.state == ImageStatus.STATE_FAILED and key in refused:
                self._fail(key, image.reason)
            elif key not in self._uploads and image.state in _WANT_UPLOAD:
                self.upload(pool, [key])  # an earlier run was stopped before it

    def give_up(self) -> None:
        """Nothing has moved for long."""
        for key in list(self.pending):
            self._fail(key, f"nothing moved for {PATIENCE_SECONDS:.0f} s: see `magpie status` and its logs")

    def _upload(self, picture: Picture) -> None:
        self._client.upload(picture.path.read_bytes(), picture.product_id)

    def _refusal(self, key: Key) -> str:
        """Why a picture's upload failed, or nothing. Raises what would fail every upload."""
        try:
            self._uploads[key].result()
        except CallFailed as error:
            if error.status not in _PICTURE_CODES:
                raise
            return str(error)
        except (UndecodableImage, UploadFailed, OSError) as error:
            return str(error)
        return ""

    def _fail(self, key: Key, reason: str) -> None:
        picture = self.pending.pop(key)
        self.report.failed.append(Failure(picture.product_id, picture.name, reason))

    def _statuses(self, product_ids: list[str]) -> Iterator[ImageStatus]:
        for ids in _batches(product_ids):
            request = GetIngestStatusRequest(product_ids=ids)
            yield from self._client.call(self._client.catalog.GetIngestStatus, request).images


def _batches(items: list[Item]) -> Iterator[list[Item]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
