"""Pictures in the bucket: permission to put them there, and reading them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from magpie.errors import InvalidArgument, NotFound
from magpie.store.aws_connection import aws_answers
from magpie.store.upload_key import UploadKey

MAX_BYTES = 20 * 2**20  # of one file
CONTENT_TYPES = ("image/jpeg", "image/png", "image/webp", "image/heic")
EXPIRES_IN_SECONDS = 15 * 60  # of every signed form and address
# By this tag the bucket's lifecycle rule forgets query photos after a day: a rule's prefix has no wildcard.
_QUERY_TAGGING = "<Tagging><TagSet><Tag><Key>magpie-kind</Key><Value>query</Value></Tag></TagSet></Tagging>"


@dataclass(frozen=True)
class PresignedUpload:
    """A form that puts one certain file into the bucket, and nothing else."""

    url: str
    fields: dict[str, str]  # before the field `file`, which comes last
    key: str
    expires_in_seconds: int


class Uploads:
    """`s3` is a boto3 client. Every method that asks S3 raises Unavailable while it does not answer."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    def create(
        self, customer: str, product_id: str, sha256: str, content_type: str, size: int
    ) -> PresignedUpload:
        """Sign a form for one picture of a product, or for a query photo where `product_id` is empty.

        S3 holds the upload to the key, the type, the checksum and at most `size` bytes. No I/O.
        """
        key = str(UploadKey(customer, product_id, sha256))
        fields = {
            "Content-Type": content_type,
            "x-amz-checksum-algorithm": "SHA256",
            "x-amz-checksum-sha256": base64.b64encode(bytes.fromhex(sha256)).decode(),
        }
        if not product_id:
            fields["tagging"] = _QUERY_TAGGING
        conditions: list[Any] = [{name: value} for name, value in fields.items()]
        form = self._s3.generate_presigned_post(
            self._bucket,
            key,
            Fields=fields,
            Conditions=[*conditions, ["content-length-range", 1, size]],
            ExpiresIn=EXPIRES_IN_SECONDS,
        )
        return PresignedUpload(form["url"], form["fields"], key, EXPIRES_IN_SECONDS)

    def read(self, key: str) -> bytes:
        """The file under a key. Raises NotFound."""
        with aws_answers(f"upload {key}"):
            return bytes(self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read())

    def read_for(self, customer: str, upload_key: str) -> bytes:
        """The file under a key that a customer named. Raises NotFound, also for another customer's key."""
        try:
            owner = UploadKey.parse(upload_key).customer
        except InvalidArgument as error:
            raise NotFound(f"no upload has the key {upload_key!r}") from error
        if owner != customer:
            raise NotFound(f"no upload has the key {upload_key!r}")
        return self.read(upload_key)

    def exists(self, key: str) -> bool:
        """Whether the file has arrived."""
        try:
            with aws_answers(f"upload {key}"):
                self._s3.head_object(Bucket=self._bucket, Key=key)
        except NotFound:
            return False
        return True

    def image_url(self, customer: str, product_id: str, sha256: str) -> str:
        """A signed address of a product's picture, good for EXPIRES_IN_SECONDS. No I/O."""
        parameters = {"Bucket": self._bucket, "Key": str(UploadKey(customer, product_id, sha256))}
        return str(
            self._s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=EXPIRES_IN_SECONDS)
        )
