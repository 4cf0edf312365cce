"""One customer's calls to the api over native gRPC, and uploads to the bucket by HTTP form."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import grpc
import urllib3

from magpie.errors import MagpieError
from magpie.services.search_request import MAX_PHOTO_BYTES
from magpie.v1.catalog_pb2 import CreateUploadRequest
from magpie.v1.catalog_pb2_grpc import CatalogServiceStub
from magpie.v1.duplicates_pb2_grpc import DuplicateServiceStub
from magpie.v1.image_pb2 import Image
from magpie.v1.ranking_config_pb2_grpc import RankingConfigServiceStub
from magpie.v1.visual_search_pb2 import SearchRequest, SearchResponse
from magpie.v1.visual_search_pb2_grpc import VisualSearchServiceStub
from magpie.vision.decode import sniff

CALL_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 5.0
_MESSAGE_BYTES = 64 * 2**20  # a status of 100 products with 50 pictures each passes gRPC's own 4 MB

Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)


class Method(Protocol[Request_contra, Response_co]):
    """A method of a generated stub."""

    def __call__(
        self, request: Request_contra, /, *, timeout: float, metadata: tuple[tuple[str, str], ...]
    ) -> Response_co:
        """Call it."""


class CallFailed(MagpieError):
    """The api refused or did not answer; the message begins with the gRPC status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = code


class UploadFailed(MagpieError):
    """The bucket refused a file, or does not answer."""


class Client:
    """Stubs that send the customer's API key, and wait `patience` seconds for an api that is away."""

    def __init__(self, address: str, key: str, patience: float = 0.0) -> None:
        limits = ("grpc.max_receive_message_length", "grpc.max_send_message_length")
        self._channel = grpc.insecure_channel(address, options=[(limit, _MESSAGE_BYTES) for limit in limits])
        self._metadata = (("x-api-key", key),)
        self._patience = patience
        self._http = urllib3.PoolManager(maxsize=16, timeout=CALL_SECONDS, retries=False)
        self.catalog = CatalogServiceStub(self._channel)
        self.duplicates = DuplicateServiceStub(self._channel)
        self.ranking_configs = RankingConfigServiceStub(self._channel)
        self.visual_search = VisualSearchServiceStub(self._channel)

    def call(self, method: Method[Request_contra, Response_co], request: Request_contra) -> Response_co:
        """The answer; UNAVAILABLE is tried again until patience ends. Raises CallFailed."""
        give_up = time.monotonic() + self._patience
        pause = 0.25
        while True:
            try:
                return method(request, timeout=CALL_SECONDS, metadata=self._metadata)
            except grpc.RpcError as error:
                code = error.code()
                if code is not grpc.StatusCode.UNAVAILABLE or time.monotonic() + pause > give_up:
                    raise CallFailed(code.name, error.details() or "") from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def pages(self, request: SearchRequest, *, all_pages: bool = True) -> Iterator[SearchResponse]:
        """The answer to a search, then its further pages. Raises CallFailed."""
        page = self.call(self.visual_search.Search, request)
        yield page
        while all_pages and page.next_page_token:
            following = SearchRequest(page_token=page.next_page_token)
            page = self.call(self.visual_search.Search, following)
            yield page

    def upload(self, data: bytes, product_id: str = "") -> str:
        """Put a picture of a product, or a query photo, into the bucket; its upload key.

        Raises UndecodableImage if the bytes are no picture, CallFailed, and UploadFailed.
        """
        permission = CreateUploadRequest(
            product_id=product_id,
            sha256=hashlib.sha256(data).hexdigest(),
            content_type=sniff(data),
            size_bytes=len(data),
        )
        give_up = time.monotonic() + self._patience
        pause = 0.25
        while True:
            # Anew for each attempt: the bucket's address may have changed with a restart.
            upload = self.call(self.catalog.CreateUpload, permission)
            problem = self._post(upload.url, dict(upload.fields), data)
            if not problem:
                return upload.upload_key
            if time.monotonic() + pause > give_up:
                raise UploadFailed(f"the upload failed: {problem}")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def fetch(self, url: str) -> bytes:
        """A picture by its signed address. Raises UploadFailed."""
        try:
            answer = self._http.request("GET", url)
        except urllib3.exceptions.HTTPError as error:
            raise UploadFailed(f"a picture cannot be fetched: {error}") from error
        if answer.status != 200:
            raise UploadFailed(f"a picture cannot be fetched: HTTP {answer.status}")
        return answer.data

    def photo(self, path: Path) -> Image:
        """A query photo: its bytes, or an upload of them where they are too many for one call."""
        data = path.read_bytes()
        return Image(content=data) if len(data) <= MAX_PHOTO_BYTES else Image(upload_key=self.upload(data))

    def close(self) -> None:
        """End the connections."""
        self._channel.close()
        self._http.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, url: str, fields: dict[str, str], data: bytes) -> str:
        """What went wrong and may go right later, or nothing. Raises UploadFailed for a refusal."""
        form: list[tuple[str, str | tuple[str, bytes]]] = [*fields.items(), ("file", ("file", data))]
        try:
            answer = self._http.request("POST", url, fields=form)
        except urllib3.exceptions.HTTPError as error:
            return str(error)
        if answer.status >= 500:
            return f"HTTP {answer.status}"
        if answer.status >= 300:
            raise UploadFailed(f"the bucket refused it: HTTP {answer.status} {answer.data[:300].decode()}")
        return ""
