"""A gRPC call as the JSON payload of a Lambda invocation, and its answer.

{"rpc": {"method": "/magpie.v1.X/Y", "metadata": {...}, "timeout_ms": 900, "body": BASE64}}
{"status": {"code": "OK", "message": ""}, "body": BASE64}
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping
from typing import Any

from magpie.errors import InvalidArgument, MagpieError
from magpie.rpc.context import CallContext
from magpie.rpc.registry import ServicerRegistry
from magpie.rpc.status import CallFailed, details


def request_payload(
    path: str, body: bytes, timeout: float | None, metadata: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    """What a caller sends. `timeout` in seconds."""
    return {
        "rpc": {
            "method": path,
            "metadata": dict(metadata),
            "timeout_ms": None if timeout is None else timeout * 1000,
            "body": base64.b64encode(body).decode(),
        }
    }


def answer(
    registry: ServicerRegistry, event: Mapping[str, Any], seconds_left: float | None
) -> dict[str, Any]:
    """Call the method that a payload names. `seconds_left` of the invocation itself bounds the deadline."""
    try:
        return _ok(_invoke(registry, event["rpc"], seconds_left))
    except MagpieError as error:
        return {"status": {"code": error.code, "message": details(error)}, "body": ""}


def response_body(payload: Mapping[str, Any]) -> bytes:
    """The serialised answer. Raises CallFailed unless the status is OK."""
    status = payload["status"]
    if status["code"] != "OK":
        raise CallFailed(status["code"], status["message"])
    return base64.b64decode(payload["body"])


def _invoke(registry: ServicerRegistry, rpc: Mapping[str, Any], seconds_left: float | None) -> bytes:
    try:
        path, body = rpc["method"], base64.b64decode(rpc["body"], validate=True)
        metadata = [(str(key), str(value)) for key, value in rpc.get("metadata", {}).items()]
        timeout = None if rpc.get("timeout_ms") is None else float(rpc["timeout_ms"]) / 1000
        if timeout is not None and not math.isfinite(timeout):
            raise ValueError(f"timeout_ms is {timeout}")  # noqa: TRY301
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise InvalidArgument(
            "rpc", f"is no call: {error!r}; it needs `method` and `body` (base64)"
        ) from error
    bounds = [bound for bound in (timeout, seconds_left) if bound is not None]
    return registry.invoke_bytes(path, body, CallContext.of_call(metadata, min(bounds, default=None)))


def _ok(body: bytes) -> dict[str, Any]:
    return {"status": {"code": "OK", "message": ""}, "body": base64.b64encode(body).decode()}
