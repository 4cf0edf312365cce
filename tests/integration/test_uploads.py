"""Uploads on a real local S3: the form is posted by HTTP, as a shop's browser posts it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import boto3
import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError

from local.ports import free_port
from magpie.errors import FailedPrecondition, MagpieError, NotFound, Unavailable
from magpie.store.aws_connection import aws_answers
from magpie.store.uploads import PresignedUpload, Uploads

DATA = b"\x89PNG of a kind"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def uploads(s3: Any, bucket: str) -> Uploads:
    return Uploads(s3, bucket)


def post(upload: PresignedUpload, data: bytes) -> urllib3.BaseHTTPResponse:
    fields: dict[str, str | tuple[str, bytes]] = {**upload.fields, "file": ("photo.png", data)}
    return urllib3.request("POST", upload.url, fields=fields, retries=False)


def policy_of(upload: PresignedUpload) -> dict[str, Any]:
    policy: dict[str, Any] = json.loads(base64.b64decode(upload.fields["policy"]))
    return policy


def is_allowed(upload: PresignedUpload, fields: dict[str, str], size: int) -> bool:
    """S3's rule, spelt out: every condition holds, and every field but these four has a condition."""
    conditions = policy_of(upload)["conditions"]
    exact = {name: value for c in conditions if isinstance(c, dict) for name, value in c.items()}
    (size_range,) = [c for c in conditions if isinstance(c, list)]
    sent = {name: value for name, value in fields.items() if name not in ("policy", "x-amz-signature")}
    bucket = exact.pop("bucket")
    return size_range[1] <= size <= size_range[2] and sent == exact and upload.url.endswith(f"/{bucket}")


def test_a_posted_file_lies_under_its_key_with_its_type(uploads: Uploads, s3: Any, bucket: str) -> None:
    upload = uploads.create("shop", "a/b 1", SHA256, "image/png", len(DATA))
    assert upload.key == f"customers/shop/catalogue/a%2Fb%201/{SHA256}"
    assert not uploads.exists(upload.key)

    assert post(upload, DATA).status == 204

    assert uploads.exists(upload.key)
    assert uploads.read(upload.key) == DATA
    assert uploads.read_for("shop", upload.key) == DATA
    assert s3.head_object(Bucket=bucket, Key=upload.key)["ContentType"] == "image/png"


def test_a_file_over_the_limit_is_refused(uploads: Uploads) -> None:
    upload = uploads.create("shop", "p", SHA256, "image/png", len(DATA))
    answer = post(upload, DATA + b"!")
    assert answer.status == 400
    assert b"EntityTooLarge" in answer.data
    assert post(upload, b"").status == 400
    assert not uploads.exists(upload.key)


def test_the_signed_policy_allows_one_file_under_one_key(uploads: Uploads) -> None:
    # The local S3 enforces the size alone, so the rule is applied here to what was signed.
    upload = uploads.create("shop", "p", SHA256, "image/png", len(DATA))
    assert is_allowed(upload, upload.fields, len(DATA))
    assert not is_allowed(upload, upload.fields, len(DATA) + 1)
    assert not is_allowed(upload, upload.fields, 0)
    for name, other in {
        "key": f"customers/other/catalogue/p/{SHA256}",
        "Content-Type": "text/html",
        "x-amz-checksum-sha256": base64.b64encode(b"\0" * 32).decode(),
        "tagging": "<Tagging/>",
        "acl": "public-read",
    }.items():
        assert not is_allowed(upload, {**upload.fields, name: other}, len(DATA)), name
    without_checksum = {name: v for name, v in upload.fields.items() if name != "x-amz-checksum-sha256"}
    assert not is_allowed(upload, without_checksum, len(DATA))
    assert base64.b64decode(upload.fields["x-amz-checksum-sha256"]).hex() == SHA256


def test_the_policy_is_signed_with_signature_version_4(uploads: Uploads) -> None:
    fields = uploads.create("shop", "p", SHA256, "image/png", 5).fields
    key = b"AWS4test"
    for part in fields["x-amz-credential"].split("/")[1:]:  # date, region, service, aws4_request
        key = hmac.digest(key, part.encode(), "sha256")
    assert hmac.digest(key, fields["policy"].encode(), "sha256").hex() == fields["x-amz-signature"]


def test_a_query_photo_is_tagged_and_lies_apart(uploads: Uploads) -> None:
    upload = uploads.create("shop", "", SHA256, "image/png", len(DATA))
    assert upload.key == f"customers/shop/queries/{SHA256}"
    assert "<Key>magpie-kind</Key><Value>query</Value>" in upload.fields["tagging"]
    assert is_allowed(upload, upload.fields, len(DATA))
    assert post(upload, DATA).status == 204
    assert uploads.read_for("shop", upload.key) == DATA


def test_a_customer_cannot_read_what_another_uploaded(uploads: Uploads) -> None:
    upload = uploads.create("theirs", "p", SHA256, "image/png", len(DATA))
    post(upload, DATA)
    for customer in ("ours", "their", "theirss", "", "theirs/catalogue"):
        with pytest.raises(NotFound):
            uploads.read_for(customer, upload.key)


@pytest.mark.parametrize(
    "key", ["", "x", "customers/shop/ranking/current.json", f"customers/shop/catalogue/../queries/{SHA256}"]
)
def test_what_is_no_upload_key_is_not_found(uploads: Uploads, s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key="customers/shop/ranking/current.json", Body=b"{}")
    with pytest.raises(NotFound):
        uploads.read_for("shop", key)


def test_a_picture_can_be_fetched_by_its_signed_address(uploads: Uploads) -> None:
    post(uploads.create("shop", "a/b %1", SHA256, "image/png", len(DATA)), DATA)
    url = uploads.image_url("shop", "a/b %1", SHA256)
    assert urllib3.request("GET", url).data == DATA
    assert "X-Amz-Expires=900" in url


def test_a_missing_file_is_not_found(uploads: Uploads) -> None:
    with pytest.raises(NotFound):
        uploads.read_for("shop", f"customers/shop/catalogue/p/{SHA256}")


def test_a_missing_bucket_is_a_failed_precondition(s3: Any) -> None:
    with pytest.raises(FailedPrecondition, match="bucket"):
        Uploads(s3, "there-is-none").read("customers/shop/queries/x")


def test_while_s3_is_away_it_says_so() -> None:
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{free_port()}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}),
    )
    with pytest.raises(Unavailable):
        Uploads(client, "magpie").read("customers/shop/queries/x")
    with pytest.raises(Unavailable):
        Uploads(client, "magpie").exists("customers/shop/queries/x")


@pytest.mark.parametrize(("code", "status"), [("SlowDown", 503), ("InternalError", 500), ("Throttling", 400)])
def test_what_a_retry_can_cure_is_unavailable(code: str, status: int) -> None:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(Unavailable, match="the bucket"), aws_answers("the bucket"):
        raise ClientError(answer, "GetObject")


def test_what_aws_refuses_is_internal() -> None:
    answer: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    with pytest.raises(MagpieError, match="AccessDenied") as raised, aws_answers("the bucket"):
        raise ClientError(answer, "GetObject")
    assert type(raised.value) is MagpieError
