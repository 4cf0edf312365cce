"""A sampled search as a queue's message: base64 of the proto, since its JSON would cost milliseconds."""

from __future__ import annotations

import base64
import binascii

from google.protobuf.message import DecodeError

from magpie.errors import InvalidArgument
from magpie.v1.probe_pb2 import SampledSearch


def body_of(search: SampledSearch) -> str:
    """Some kilobytes."""
    return base64.b64encode(search.SerializeToString()).decode()


def search_of(body: str) -> SampledSearch:
    """Raises InvalidArgument unless it is one, of a customer."""
    try:
        search = SampledSearch.FromString(base64.b64decode(body, validate=True))
    except (binascii.Error, DecodeError, ValueError) as error:
        raise InvalidArgument("event", f"is no SampledSearch: {error}") from error
    if not search.customer:
        raise InvalidArgument("event.customer", "is missing: nobody knows whose search it is")
    return search
