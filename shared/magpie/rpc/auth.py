"""Public transports: the API key decides the customer, and nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from magpie.errors import Unauthenticated


class CustomerDirectory(Protocol):
    """Who has which key."""

    def customer_of(self, key: str) -> str | None:
        """The customer, or None for a key that is nobody's."""


class Authenticator:
    """Reads `x-api-key`, else `authorization: Bearer`."""

    def __init__(self, directory: CustomerDirectory) -> None:
        self._directory = directory

    def customer(self, metadata: Mapping[str, str]) -> str:
        """`metadata` with lower-case names. Raises Unauthenticated."""
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        key = metadata.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        if not key:
            raise Unauthenticated("no API key: send it as `x-api-key: KEY` or `authorization: Bearer KEY`")
        customer = self._directory.customer_of(key)
        if customer is None:
            raise Unauthenticated("unknown API key: it belongs to no customer, or was revoked")
        return customer
