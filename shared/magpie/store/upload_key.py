"""Where an uploaded picture lies in the bucket."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from magpie.errors import InvalidArgument

CUSTOMER = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(
    rf"customers/(?P<customer>{CUSTOMER.pattern})/(?:queries|catalogue/(?P<product>[^/]+))/(?P<sha256>{SHA256.pattern})"
)


class UploadKey(NamedTuple):
    """`customers/CUSTOMER/catalogue/PRODUCT/SHA256`, for a query photo `customers/CUSTOMER/queries/SHA256`.

    PRODUCT is percent-encoded, so that any id is one segment.
    """

    customer: str
    product_id: str  # empty: a query photo
    sha256: str  # that the bytes have, 64 lower-case hexadecimal digits

    def __str__(self) -> str:
        """The key in the bucket."""
        if not self.product_id:
            return f"customers/{self.customer}/queries/{self.sha256}"
        return f"customers/{self.customer}/catalogue/{encoded(self.product_id)}/{self.sha256}"

    @classmethod
    def parse(cls, text: str) -> UploadKey:
        """The inverse. Raises InvalidArgument for any text that `str` would not have written."""
        match = _KEY.fullmatch(text)
        if match:
            key = cls(match["customer"], unquote(match["product"] or ""), match["sha256"])
            if str(key) == text:
                return key
        raise InvalidArgument(
            "upload_key", f"no key of an upload: {text!r}; take it from CreateUpload's answer"
        )


def encoded(product_id: str) -> str:
    """A product id as one segment of a key: percent-encoded, never `.` or `..`."""
    return quote(product_id, safe="") if product_id.strip(".") else product_id.replace(".", "%2E")
