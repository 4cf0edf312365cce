"""The public services over HTTP: Connect, gRPC-Web and plain JSON, by connectrpc, as one WSGI app.

`POST /magpie.v1.VisualSearchService/Search` with `content-type: application/json` is all that a client needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from connectrpc.code import Code
from connectrpc.compat import google_protobuf_codecs
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectWSGIApplication, EndpointSync
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from magpie.errors import MagpieError
from magpie.rpc.auth import Authenticator
from magpie.rpc.context import CallContext
from magpie.rpc.native_server import MAX_MESSAGE_BYTES
from magpie.rpc.registry import Method, ServicerRegistry
from magpie.rpc.status import RETRY_AFTER_SECONDS, details

StartResponse = Callable[..., Any]
# A 4 MB photo grows by a third in JSON.
_MAX_BODY_BYTES = MAX_MESSAGE_BYTES * 4 // 3
_CORS = [
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "POST, OPTIONS"),
    ("access-control-allow-headers", "*, authorization, content-type, x-api-key"),
    ("access-control-expose-headers", "*"),
    ("access-control-max-age", "7200"),
]
_NATIVE = ("application/grpc", "application/grpc+proto")
# How long the Lambda invocation has left. A client that sends it can only shorten its own call.
_TIME_LEFT = "magpie-time-left-ms"
_TIME_LEFT_KEY = "HTTP_MAGPIE_TIME_LEFT_MS"


class HttpApp:
    """The WSGI app. `cors` off where a function URL adds those headers itself."""

    def __init__(self, registry: ServicerRegistry, authenticator: Authenticator, cors: bool = True) -> None:
        self._services = {name: _Service(name, registry, authenticator) for name in registry.services()}
        self._paths = sorted(registry.methods)
        self._cors = _CORS if cors else []

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """One request."""

        def respond(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            advice = [("retry-after", str(RETRY_AFTER_SECONDS))] if status.startswith("503") else []
            return start_response(status, [*headers, *advice, *self._cors], *rest)

        if environ["REQUEST_METHOD"] == "OPTIONS":
            respond("204 No Content", [])
            return []
        path = environ.get("PATH_INFO", "")
        if path in self._paths:
            if environ["REQUEST_METHOD"] != "POST":
                return _refuse(respond, "405 Method Not Allowed", "POST only")
            if environ.get("CONTENT_TYPE", "") in _NATIVE:
                return _refuse(respond, "415 Unsupported Media Type", "native gRPC has a port of its own")
            if (invocation := environ.get("apig_wsgi.context")) is not None:
                environ[_TIME_LEFT_KEY] = str(invocation.get_remaining_time_in_millis())
            return self._services[path.split("/")[1]](environ, respond)
        if path in ("", "/", "/healthz"):
            return _json(respond, "200 OK", {"status": "serving", "methods": self._paths})
        return _refuse(respond, "404 Not Found", f"no {path} here; POST to one of {', '.join(self._paths)}")


def _refuse(respond: StartResponse, status: str, problem: str) -> list[bytes]:
    return _json(respond, status, {"code": "unimplemented", "message": problem})


def _milliseconds(text: str | None) -> float | None:
    return float(text) if text and text.isdecimal() else None


def _json(respond: StartResponse, status: str, body: dict[str, Any]) -> list[bytes]:
    respond(status, [("content-type", "application/json")])
    return [json.dumps(body).encode()]


class _Service(ConnectWSGIApplication):
    """One service of the registry."""

    def __init__(self, name: str, registry: ServicerRegistry, authenticator: Authenticator) -> None:
        self._name = name
        methods = [method for method in registry.methods.values() if method.service == name]
        super().__init__(
            endpoints={method.path: _endpoint(method, registry, authenticator) for method in methods},
            read_max_bytes=_MAX_BODY_BYTES,
            codecs=google_protobuf_codecs(),
        )

    @property
    def path(self) -> str:
        """Where it is mounted."""
        return f"/{self._name}"


def _endpoint(method: Method, registry: ServicerRegistry, authenticator: Authenticator) -> Any:
    descriptor = descriptor_pool.Default().FindServiceByName(method.service).FindMethodByName(method.name)
    info: MethodInfo[Any, Any] = MethodInfo(
        name=method.name,
        service_name=method.service,
        input=message_factory.GetMessageClass(descriptor.input_type),
        output=message_factory.GetMessageClass(descriptor.output_type),
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.UNARY,
    )

    def function(request: Message, call: RequestContext[Any, Any]) -> Message:
        headers = list(call.request_headers.items())
        bounds = [call.timeout_ms, _milliseconds(call.request_headers.get(_TIME_LEFT))]
        timeout = min((bound / 1000 for bound in bounds if bound is not None), default=None)
        try:
            customer = authenticator.customer(dict(headers))
            return registry.invoke(method.path, request, CallContext.of_call(headers, timeout, customer))
        except MagpieError as error:
            raise ConnectError(Code(error.code.lower()), details(error)) from error

    return EndpointSync.unary(method=info, function=function)
