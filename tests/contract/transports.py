"""Every way in which a generated stub can reach a servicer, each with real parts from end to end."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from socketserver import ThreadingMixIn
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import grpc
import urllib3
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

from magpie.rpc.auth import Authenticator
from magpie.rpc.context import CUSTOMER
from magpie.rpc.http_app import HttpApp
from magpie.rpc.lambda_channel import LambdaChannel
from magpie.rpc.lambda_server import LambdaServer
from magpie.rpc.local_channel import LocalChannel
from magpie.rpc.native_server import serve
from magpie.rpc.registry import ServicerRegistry
from magpie.rpc.status import CallFailed
from tests.conftest import free_port

Metadata = tuple[tuple[str, str], ...]
INVOCATION_SECONDS = 30.0


class Keys(dict[str, str]):
    """Customers by their API keys."""

    def customer_of(self, key: str) -> str | None:
        """As magpie.store.customers has it."""
        return self.get(key)


@dataclass(frozen=True)
class Transport:
    """A channel for generated stubs; `public` where an API key says who calls."""

    channel: Any
    public: bool
    base: str = ""  # where it listens

    def calls_as(self, customer: str) -> Metadata:
        """Metadata of a customer's call. On a public transport the header is somebody else's claim."""
        if self.public:
            return (("x-api-key", f"key of {customer}"), (CUSTOMER, "intruder"))
        return ((CUSTOMER, customer),)


@contextmanager
def native(registry: ServicerRegistry, keys: Keys) -> Iterator[Transport]:
    """Native gRPC over the loopback."""
    address = f"127.0.0.1:{free_port()}"
    server = serve(registry, address, Authenticator(keys))
    try:
        with grpc.insecure_channel(address) as channel:
            yield Transport(channel, public=True, base=address)
    finally:
        server.stop(None).wait()


@contextmanager
def local(registry: ServicerRegistry, _keys: Keys) -> Iterator[Transport]:
    """In process."""
    yield Transport(LocalChannel(registry), public=False)


class LambdaClient:
    """boto3's for Lambda: what comes and goes is JSON, as on the wire."""

    def __init__(self, server: LambdaServer, seconds_left: float = INVOCATION_SECONDS) -> None:
        self._server = server
        self._context = SimpleNamespace(get_remaining_time_in_millis=lambda: int(seconds_left * 1000))

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        """As boto3's."""
        answer = self._server.handle(json.loads(Payload), self._context)
        return {"StatusCode": 200, "Payload": io.BytesIO(json.dumps(answer).encode())}


@contextmanager
def lambda_invoke(registry: ServicerRegistry, _keys: Keys) -> Iterator[Transport]:
    """A Lambda invocation."""
    yield Transport(LambdaChannel(LambdaClient(LambdaServer(registry)), "detection"), public=False)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_args: Any) -> None:
        """Nothing on stderr."""


@contextmanager
def http_server(registry: ServicerRegistry, keys: Keys) -> Iterator[str]:
    """URL of the WSGI app on the loopback."""
    app = HttpApp(registry, Authenticator(keys))
    with make_server("127.0.0.1", 0, app, _Server, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _HttpChannel:
    """What a generated stub needs of a channel, over an HTTP client, after the protocols' own texts."""

    content_type: str

    def __init__(self, base: str) -> None:
        self._base = base
        self._pool = urllib3.PoolManager(retries=False, timeout=30)

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Message], bytes],
        response_deserializer: Callable[[bytes], Message],
        **_options: Any,
    ) -> Callable[..., Message]:
        """Called by generated code, once a method."""

        def call(
            request: Message, timeout: float | None = None, metadata: Iterable[tuple[str, str]] = ()
        ) -> Message:
            headers = {**dict(metadata), "content-type": self.content_type, **self.deadline(timeout)}
            body = self.encode(request, request_serializer)
            answer = self._pool.request("POST", self._base + path, body=body, headers=headers)
            return response_deserializer(self.decode(answer, path))

        return call

    def deadline(self, timeout: float | None) -> dict[str, str]:
        return {} if timeout is None else {"connect-timeout-ms": str(round(timeout * 1000))}

    def encode(self, request: Message, serialize: Callable[[Message], bytes]) -> bytes:
        return serialize(request)

    def decode(self, answer: urllib3.BaseHTTPResponse, path: str) -> bytes:
        """connectrpc.com/docs/protocol: an error is JSON; without a body the HTTP status stands for it."""
        if answer.status != HTTPStatus.OK:
            if answer.status == HTTPStatus.NOT_FOUND and not answer.data:
                raise CallFailed("UNIMPLEMENTED", "")
            error = answer.json()
            raise CallFailed(error["code"].upper(), error.get("message", ""))
        assert answer.headers["content-type"] == self.content_type
        return answer.data


class ConnectProto(_HttpChannel):
    """Connect with binary messages."""

    content_type = "application/proto"


class ConnectJson(_HttpChannel):
    """Connect with JSON, which is what curl sends."""

    content_type = "application/json"

    def encode(self, request: Message, serialize: Callable[[Message], bytes]) -> bytes:
        return json_format.MessageToJson(request).encode()

    def decode(self, answer: urllib3.BaseHTTPResponse, path: str) -> bytes:
        text = super().decode(answer, path)
        _, service, name = path.split("/")
        method = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name)
        message = message_factory.GetMessageClass(method.output_type)()
        return json_format.Parse(text, message).SerializeToString()


class GrpcWeb(_HttpChannel):
    """github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md: flags, length, data; trailers have flag 0x80."""

    content_type = "application/grpc-web+proto"

    def deadline(self, timeout: float | None) -> dict[str, str]:
        return {} if timeout is None else {"grpc-timeout": f"{round(timeout * 1000)}m"}

    def encode(self, request: Message, serialize: Callable[[Message], bytes]) -> bytes:
        body = serialize(request)
        return b"\0" + len(body).to_bytes(4, "big") + body

    def decode(self, answer: urllib3.BaseHTTPResponse, path: str) -> bytes:
        if answer.status == HTTPStatus.NOT_FOUND:
            raise CallFailed("UNIMPLEMENTED", "")
        assert answer.status == HTTPStatus.OK
        data, trailers = b"", {name.lower(): value for name, value in answer.headers.items()}
        for flags, frame in _frames(answer.data):
            if flags & 0x80:
                trailers = dict(line.split(": ", 1) for line in frame.decode().splitlines())
            else:
                data = frame
        if trailers["grpc-status"] != "0":
            codes = {code.value[0]: code.name for code in grpc.StatusCode}
            raise CallFailed(codes[int(trailers["grpc-status"])], unquote(trailers.get("grpc-message", "")))
        return data


def _frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        length = int.from_bytes(body[1:5], "big")
        yield body[0], body[5 : 5 + length]
        body = body[5 + length :]


def _http(channel: type[_HttpChannel]) -> Callable[..., AbstractContextManager[Transport]]:
    @contextmanager
    def opened(registry: ServicerRegistry, keys: Keys) -> Iterator[Transport]:
        with http_server(registry, keys) as base:
            yield Transport(channel(base), public=True, base=base)

    return opened


TRANSPORTS: Mapping[str, Callable[[ServicerRegistry, Keys], AbstractContextManager[Transport]]] = {
    "native": native,
    "local": local,
    "lambda": lambda_invoke,
    "connect-json": _http(ConnectJson),
    "connect-proto": _http(ConnectProto),
    "grpc-web": _http(GrpcWeb),
}
