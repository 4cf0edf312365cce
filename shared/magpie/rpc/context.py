"""What travels with every call besides its message: customer, trace id, deadline, metadata."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from magpie.errors import Unauthenticated

CUSTOMER = "magpie-customer"
TRACE_ID = "magpie-trace-id"
_TRACE_IDS = (TRACE_ID, "x-request-id", "traceparent", "x-amzn-trace-id")
_TRACE_FORM = re.compile(r"[\w.:;=/+-]{1,128}", re.ASCII)
_SECRET = ("x-api-key", "authorization")  # have served their purpose; never logged

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CallContext:
    """The `context` of every servicer method, the same on every transport.

    `customer` is empty where nobody is known; `deadline` is on the monotonic clock, in seconds.
    """

    customer: str = ""
    trace_id: str = ""
    deadline: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_call(
        cls,
        metadata: Iterable[tuple[str, str | bytes]],
        timeout: float | None = None,
        customer: str | None = None,
    ) -> CallContext:
        """`timeout` in seconds; `customer` by the API key on public transports, None trusts the metadata."""
        texts = {key.lower(): value for key, value in metadata if isinstance(value, str)}
        offered = (texts.get(name, "") for name in _TRACE_IDS)
        return cls(
            customer=texts.get(CUSTOMER, "") if customer is None else customer,
            trace_id=next(filter(_TRACE_FORM.fullmatch, offered), None) or uuid.uuid4().hex,
            deadline=None if timeout is None else time.monotonic() + timeout,
            metadata={key: value for key, value in texts.items() if key not in _SECRET},
        )

    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def require_customer(self) -> str:
        """Raises Unauthenticated if nobody is known."""
        if not self.customer:
            raise Unauthenticated("no customer: send the API key as `x-api-key` or `authorization: Bearer`")
        return self.customer

    def outgoing(self) -> Metadata:
        """Metadata for a call on behalf of this one."""
        return ((CUSTOMER, self.customer), (TRACE_ID, self.trace_id))
