"""The contract of test_transports again, with Connect and gRPC-Web written out, and behind a function URL.

The servicers are echoes: what they answer is computed from the request, and what they are to raise is asked
for in the metadata. Clients and servers are real, on the loopback; Lambda's client is one that passes the
payload to the handler as JSON, as Lambda does.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

import grpc
import pytest
import urllib3
from apig_wsgi import make_lambda_handler
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from waitress.server import create_server

from magpie import errors
from magpie.errors import InvalidArgument, MagpieError, Unavailable
from magpie.rpc import native_server
from magpie.rpc.auth import Authenticator
from magpie.rpc.context import CallContext
from magpie.rpc.http_app import HttpApp
from magpie.rpc.lambda_channel import LambdaChannel
from magpie.rpc.lambda_server import LambdaServer
from magpie.rpc.local_channel import LocalChannel
from magpie.rpc.registry import ServicerRegistry
from magpie.rpc.status import RETRY_AFTER_SECONDS
from magpie.v1 import (
    catalog_pb2_grpc,
    detection_pb2_grpc,
    embedding_pb2_grpc,
    ranking_config_pb2_grpc,
    reranking_pb2_grpc,
    search_pb2_grpc,
    visual_search_pb2_grpc,
)
from magpie.v1.visual_search_pb2 import SearchRequest, SearchResponse
from tests.conftest import free_port

GENERATED: dict[str, Any] = {
    "CatalogService": catalog_pb2_grpc,
    "DetectionService": detection_pb2_grpc,
    "EmbeddingService": embedding_pb2_grpc,
    "RankingConfigService": ranking_config_pb2_grpc,
    "RerankingService": reranking_pb2_grpc,
    "SearchService": search_pb2_grpc,
    "VisualSearchService": visual_search_pb2_grpc,
}
METHODS: dict[str, MethodDescriptor] = {
    f"/magpie.v1.{service}/{method.name}": method
    for service in GENERATED
    for method in descriptor_pool.Default().FindServiceByName(f"magpie.v1.{service}").methods
}
SEARCH = "/magpie.v1.VisualSearchService/Search"
KEYS = {"key-of-the-shop": "shop", "key-of-another": "another"}
INVOCATION_SECONDS = 30.0
DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED

ERRORS = [
    errors.InvalidArgument("box", "x1 must be greater than x0: got 0.2"),
    errors.FilterSyntax("price < < 3", 8, "expected a value"),
    errors.UndecodableImage("is truncated"),
    errors.Unauthenticated("no such key"),
    errors.NotFound("upload_key: there is none — naïve, 商品"),
    errors.FailedPrecondition("the bundle does not match"),
    errors.Aborted("expected_version: is 3, in force is 4"),
    errors.Unavailable("Redis does not answer"),
    errors.DeadlineExceeded("took too long"),
    errors.Unimplemented("not yet"),
    errors.FilterMismatch("prize < 3", 0, "no product has it: did you mean `price`?"),
]


# --- Messages: every field set, by a seed ---------------------------------------------------------


def filled(descriptor: Descriptor, seed: int) -> Message:
    """A message of which every field is set (of a oneof, the last)."""
    message = message_factory.GetMessageClass(descriptor)()
    for place, each in enumerate(descriptor.fields):
        fill(message, each, seed + 31 * place)
    return message


def fill(message: Message, each: FieldDescriptor, seed: int) -> None:
    target: Any = getattr(message, each.name) if each.is_repeated or each.message_type else None
    if each.message_type and each.message_type.GetOptions().map_entry:
        key, value = each.message_type.fields
        for n in (seed, seed + 1):
            if value.message_type:
                target[scalar(key, n)].CopyFrom(filled(value.message_type, n))
            else:
                target[scalar(key, n)] = scalar(value, n)
    elif each.message_type:
        for n in range(2 if each.is_repeated else 1):
            part = filled(each.message_type, seed + n)
            target.add().CopyFrom(part) if each.is_repeated else target.CopyFrom(part)
    elif each.is_repeated:
        target.extend([scalar(each, seed), scalar(each, seed + 1)])
    else:
        setattr(message, each.name, scalar(each, seed))


def scalar(each: FieldDescriptor, seed: int) -> Any:
    if each.enum_type:
        return each.enum_type.values[1 + seed % (len(each.enum_type.values) - 1)].number
    return {
        FieldDescriptor.CPPTYPE_STRING: (
            bytes([seed % 256, 0, 255]) if each.type == FieldDescriptor.TYPE_BYTES else f"é{seed}"
        ),
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_FLOAT: seed % 4096 / 64,  # exact in binary
        FieldDescriptor.CPPTYPE_DOUBLE: seed / 7,
        FieldDescriptor.CPPTYPE_INT32: seed % 100_000,
        FieldDescriptor.CPPTYPE_INT64: 2**40 + seed,
        FieldDescriptor.CPPTYPE_UINT64: 2**63 + seed,
    }[each.cpp_type]


def request_of(path: str) -> Message:
    return filled(METHODS[path].input_type, zlib.crc32(path.encode()) % 1000)


def answer_to(path: str, request: Message) -> Message:
    seed = zlib.crc32(request.SerializeToString(deterministic=True)) % 1000
    return filled(METHODS[path].output_type, seed)


# --- Servicers ------------------------------------------------------------------------------------


@dataclass
class Echo:
    """All services. Obeys `test-raise` (index of ERRORS, `bug`, `long`, `customer`), `test-sleep` (s)."""

    seen: list[tuple[str, CallContext, float | None]] = field(default_factory=list)

    def answer(self, path: str, request: Message, context: CallContext) -> Message:
        self.seen.append((path, context, context.remaining()))
        time.sleep(float(context.metadata.get("test-sleep", 0)))
        match context.metadata.get("test-raise"):
            case None:
                return answer_to(path, request)
            case "bug":
                raise ZeroDivisionError("secret of the implementation")
            case "customer":
                context.require_customer()
                raise AssertionError("there was a customer")
            case "long":
                raise InvalidArgument("filter", "商" * 2000)
            case index:
                raise ERRORS[int(index)]

    def registry(self) -> ServicerRegistry:
        """With every service, through the generated code."""
        registry = ServicerRegistry()
        for service, generated in GENERATED.items():
            names = [path.split("/")[2] for path in METHODS if f".{service}/" in path]
            methods = {name: self._method(f"/magpie.v1.{service}/{name}") for name in names}
            servicer = type(service, (getattr(generated, f"{service}Servicer"),), methods)
            getattr(generated, f"add_{service}Servicer_to_server")(servicer(), registry.server)
        return registry

    def _method(self, path: str) -> Callable[[Any, Message, CallContext], Message]:
        def method(_servicer: Any, request: Message, context: CallContext) -> Message:
            return self.answer(path, request, context)

        return method


# --- Transports -----------------------------------------------------------------------------------


@dataclass
class Failed(Exception):
    """How a call failed, as its client saw it."""

    code: grpc.StatusCode
    message: str


Metadata = dict[str, str]


class Transport(Protocol):
    """A way to the servicers."""

    def call(self, path: str, request: Message, metadata: Metadata, timeout: float | None = None) -> Message:
        """Raises Failed."""

    def call_bytes(self, path: str, body: bytes, metadata: Metadata) -> bytes:
        """With a body that need not be a message, to a path that need not be a method. Raises Failed."""


@dataclass
class Stubs:
    """Generated stubs over a channel."""

    channel: Any

    def call(self, path: str, request: Message, metadata: Metadata, timeout: float | None = None) -> Message:
        _, service, name = path.split("/")
        stub = getattr(GENERATED[service.split(".")[-1]], f"{service.split('.')[-1]}Stub")(self.channel)
        with rpc_errors():
            answer: Message = getattr(stub, name)(request, timeout=timeout, metadata=tuple(metadata.items()))
            return answer

    def call_bytes(self, path: str, body: bytes, metadata: Metadata) -> bytes:
        with rpc_errors():
            method = self.channel.unary_unary(
                path, request_serializer=lambda data: data, response_deserializer=lambda data: data
            )
            answer: bytes = method(body, timeout=None, metadata=tuple(metadata.items()))
            return answer


@contextmanager
def rpc_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise Failed(error.code(), error.details() or "") from error


@dataclass
class LambdaClient:
    """boto3's client, as far as LambdaChannel uses it; the payload passes as JSON text in both directions."""

    handle: Callable[[dict[str, Any], Any], dict[str, Any]]
    seconds: float = INVOCATION_SECONDS

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        ends = time.monotonic() + self.seconds
        context = SimpleNamespace(
            get_remaining_time_in_millis=lambda: int((ends - time.monotonic()) * 1000),
            function_name=FunctionName,
        )
        answer = json.dumps(self.handle(json.loads(Payload), context)).encode()
        return {"StatusCode": 200, "Payload": io.BytesIO(answer)}


Send = Callable[[str, str, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]


@dataclass
class Connect:
    """The Connect protocol for unary calls, written out (connectrpc.com/docs/protocol)."""

    send: Send
    codec: str  # `json` or `proto`

    def call(self, path: str, request: Message, metadata: Metadata, timeout: float | None = None) -> Message:
        headers = dict(metadata)
        if timeout is not None:
            headers["connect-timeout-ms"] = str(int(timeout * 1000))
        body = self.call_bytes(path, encode(self.codec, request), headers)
        return decode(self.codec, path, body)

    def call_bytes(self, path: str, body: bytes, metadata: Metadata) -> bytes:
        headers = {"content-type": f"application/{self.codec}", **metadata}
        status, _, answer = self.send("POST", path, headers, body)
        if status == 404 and not answer:  # as Connect maps HTTP
            raise Failed(grpc.StatusCode.UNIMPLEMENTED, "")
        if status != 200:
            error = json.loads(answer)
            raise Failed(grpc.StatusCode[error["code"].upper()], error["message"])
        return answer


@dataclass
class GrpcWeb:
    """gRPC-Web, written out: frames of a flag byte and a length; a set top bit means trailers."""

    send: Send

    def call(self, path: str, request: Message, metadata: Metadata, timeout: float | None = None) -> Message:
        headers = dict(metadata)
        if timeout is not None:
            headers["grpc-timeout"] = f"{int(timeout * 1000)}m"
        return decode("proto", path, self.call_bytes(path, request.SerializeToString(), headers))

    def call_bytes(self, path: str, body: bytes, metadata: Metadata) -> bytes:
        headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", **metadata}
        status, answered, answer = self.send("POST", path, headers, struct.pack(">BI", 0, len(body)) + body)
        if status == 404:  # as gRPC maps HTTP
            raise Failed(grpc.StatusCode.UNIMPLEMENTED, answer.decode())
        assert status == 200
        message, trailers = b"", dict(answered)
        while answer:
            flags, size = struct.unpack(">BI", answer[:5])
            frame, answer = answer[5 : 5 + size], answer[5 + size :]
            if flags & 0x80:
                lines = [line.partition(":") for line in frame.decode().split("\r\n") if line]
                trailers |= {name.strip().lower(): value.strip() for name, _, value in lines}
            else:
                message = frame
        code = next(code for code in grpc.StatusCode if code.value[0] == int(trailers["grpc-status"]))
        if code is not grpc.StatusCode.OK:
            raise Failed(code, urllib.parse.unquote(trailers.get("grpc-message", "")))
        return message


def encode(codec: str, message: Message) -> bytes:
    return json_format.MessageToJson(message).encode() if codec == "json" else message.SerializeToString()


def decode(codec: str, path: str, body: bytes) -> Message:
    message = message_factory.GetMessageClass(METHODS[path].output_type)()
    if codec == "json":
        return json_format.Parse(body, message)
    message.ParseFromString(body)
    return message


def over_http(address: str) -> Send:
    """A real client."""
    pool = urllib3.PoolManager(retries=False)

    def send(verb: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        answer = pool.request(verb, address + path, headers=headers, body=body)
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.data

    return send


def over_function_url(server: LambdaServer) -> Send:
    """As Lambda turns an HTTP request into an event of payload version 2.0, and the answer back."""

    def send(verb: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        event = {
            "version": "2.0",
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"host": "x.lambda-url.aws", "content-length": str(len(body)), **headers},
            "requestContext": {
                "http": {"method": verb, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"}
            },
            "body": base64.b64encode(body).decode(),
            "isBase64Encoded": True,
        }
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: int(INVOCATION_SECONDS * 1000))
        answer = json.loads(json.dumps(server.handle(json.loads(json.dumps(event)), context)))
        data = base64.b64decode(answer["body"]) if answer["isBase64Encoded"] else answer["body"].encode()
        return answer["statusCode"], {k.lower(): v for k, v in answer["headers"].items()}, data

    return send


@dataclass
class System:
    """All transports before the same servicers."""

    echo: Echo
    registry: ServicerRegistry
    grpc_address: str
    http: Send
    transports: dict[str, Transport]

    def last(self) -> tuple[str, CallContext, float | None]:
        """What the servicer saw: path, context, seconds that were left."""
        return self.echo.seen[-1]


INTERNAL = ("in process", "lambda")
PUBLIC = ("native", "connect json", "connect proto", "grpc-web", "url json", "url proto", "url grpc-web")
ALL = (*INTERNAL, *PUBLIC)


class Directory:
    """Who has which key."""

    def customer_of(self, key: str) -> str | None:
        if key == "the directory is away":
            raise Unavailable("Redis does not answer")
        return KEYS.get(key)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    echo = Echo()
    registry = echo.registry()
    authenticator = Authenticator(Directory())
    grpc_address = f"127.0.0.1:{free_port()}"
    native = native_server.serve(registry, grpc_address, authenticator)
    http_server: Any = create_server(HttpApp(registry, authenticator), host="127.0.0.1", port=0, threads=4)
    threading.Thread(target=http_server.run, daemon=True).start()
    http = over_http(f"http://127.0.0.1:{http_server.effective_port}")
    behind_url = make_lambda_handler(HttpApp(registry, authenticator, cors=False), binary_support=True)
    url = over_function_url(LambdaServer(registry, http=behind_url))
    channel = grpc.insecure_channel(grpc_address)
    yield System(
        echo,
        registry,
        grpc_address,
        http,
        {
            "in process": Stubs(LocalChannel(registry)),
            "lambda": Stubs(LambdaChannel(LambdaClient(LambdaServer(registry).handle), "magpie-x")),
            "native": Stubs(channel),
            "connect json": Connect(http, "json"),
            "connect proto": Connect(http, "proto"),
            "grpc-web": GrpcWeb(http),
            "url json": Connect(url, "json"),
            "url proto": Connect(url, "proto"),
            "url grpc-web": GrpcWeb(url),
        },
    )
    channel.close()
    native.stop(None).wait()
    http_server.close()


def caller(transport: str, **more: str) -> Metadata:
    """Metadata of the shop's calls: by key where the public calls, by name between Magpie's own functions."""
    who = {"magpie-customer": "shop"} if transport in INTERNAL else {"x-api-key": "key-of-the-shop"}
    return who | {name.replace("_", "-"): value for name, value in more.items()}


def failure(call: Callable[[], Any]) -> Failed:
    with pytest.raises(Failed) as failed:
        call()
    return failed.value


# --- The contract ---------------------------------------------------------------------------------


def test_the_contract_covers_every_generated_service() -> None:
    package = descriptor_pool.Default().FindFileContainingSymbol("magpie.v1.VisualSearchService").package
    assert package == "magpie.v1"
    assert len(GENERATED) == 7
    assert len(METHODS) == 16
    assert not any(method.client_streaming or method.server_streaming for method in METHODS.values())


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("transport", ALL)
def test_every_method_answers_alike_and_knows_its_caller(system: System, transport: str, path: str) -> None:
    request = request_of(path)
    metadata = caller(transport, magpie_trace_id=f"trace of {path}".replace(" ", "-"))
    answer = system.transports[transport].call(path, request, metadata)
    assert answer == answer_to(path, request)
    assert answer.ByteSize() > 0
    seen_path, context, _ = system.last()
    assert (seen_path, context.customer) == (path, "shop")
    assert context.trace_id == metadata["magpie-trace-id"]


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("transport", ALL)
def test_every_method_fails_alike(system: System, transport: str, path: str) -> None:
    metadata = caller(transport, test_raise="4")
    failed = failure(lambda: system.transports[transport].call(path, request_of(path), metadata))
    assert (failed.code, failed.message) == (grpc.StatusCode.NOT_FOUND, str(ERRORS[4]))


@pytest.mark.parametrize("index", range(len(ERRORS)), ids=[type(error).__name__ for error in ERRORS])
@pytest.mark.parametrize("transport", ALL)
def test_every_error_keeps_its_code_and_message(system: System, transport: str, index: int) -> None:
    error: MagpieError = ERRORS[index]
    metadata = caller(transport, test_raise=str(index))
    failed = failure(lambda: system.transports[transport].call(SEARCH, request_of(SEARCH), metadata))
    assert (failed.code.name, failed.message) == (error.code, str(error))


def test_every_error_class_is_tried() -> None:
    def tree(kind: type[MagpieError]) -> set[type[MagpieError]]:
        return {kind}.union(*map(tree, kind.__subclasses__()))

    ours = {kind for kind in tree(MagpieError) if kind.__module__ == "magpie.errors"}
    assert {type(error) for error in ERRORS} == ours - {MagpieError}


@pytest.mark.parametrize("transport", ALL)
def test_a_long_message_keeps_its_code(system: System, transport: str) -> None:
    """A filter of 2000 characters stands in its own error; gRPC carries the message as a header."""
    metadata = caller(transport, test_raise="long")
    failed = failure(lambda: system.transports[transport].call(SEARCH, request_of(SEARCH), metadata))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.message.startswith("filter: 商商商")


@pytest.mark.parametrize("transport", ALL)
def test_a_bug_is_internal_and_keeps_its_secrets(system: System, transport: str) -> None:
    metadata = caller(transport, test_raise="bug", magpie_trace_id="trace-of-the-bug")
    failed = failure(lambda: system.transports[transport].call(SEARCH, request_of(SEARCH), metadata))
    assert failed.code is grpc.StatusCode.INTERNAL
    assert "secret" not in failed.message
    assert "trace-of-the-bug" in failed.message


@pytest.mark.parametrize("path", ["/magpie.v1.VisualSearchService/Guess", "/magpie.v1.NoService/Search"])
@pytest.mark.parametrize("transport", ALL)
def test_an_unknown_method_is_unimplemented(system: System, transport: str, path: str) -> None:
    failed = failure(lambda: system.transports[transport].call_bytes(path, b"", caller(transport)))
    assert failed.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("transport", [name for name in ALL if name != "in process"])
def test_a_body_that_is_no_request_is_an_invalid_argument(system: System, transport: str) -> None:
    failed = failure(
        lambda: system.transports[transport].call_bytes(SEARCH, b"\xff\xff\xff", caller(transport))
    )
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("transport", ALL)
def test_a_deadline_travels(system: System, transport: str) -> None:
    system.transports[transport].call(SEARCH, request_of(SEARCH), caller(transport), timeout=5)
    _, _, left = system.last()
    assert left is not None
    assert 0 < left < 5.1  # grpcio counts on a clock of its own


@pytest.mark.parametrize("transport", [name for name in ALL if not name.startswith("url")])
def test_without_a_deadline_only_the_host_limits_a_call(system: System, transport: str) -> None:
    system.transports[transport].call(SEARCH, request_of(SEARCH), caller(transport))
    _, _, left = system.last()
    if transport == "lambda":
        assert left is not None
        assert 0 < left <= INVOCATION_SECONDS
    else:
        assert left is None


@pytest.mark.parametrize("transport", [name for name in ALL if name.startswith("url")])
def test_behind_a_function_url_the_invocation_limits_a_call(system: System, transport: str) -> None:
    system.transports[transport].call(SEARCH, request_of(SEARCH), caller(transport))
    _, _, left = system.last()
    assert left is not None
    assert 0 < left <= INVOCATION_SECONDS


@pytest.mark.parametrize("transport", ALL)
def test_an_answer_after_the_deadline_is_deadline_exceeded(system: System, transport: str) -> None:
    metadata = caller(transport, test_sleep="0.3")
    failed = failure(
        lambda: system.transports[transport].call(SEARCH, request_of(SEARCH), metadata, timeout=0.1)
    )
    assert failed.code is DEADLINE


@pytest.mark.parametrize("transport", ["in process", "lambda", "connect json", "connect proto", "grpc-web"])
def test_a_deadline_that_has_passed_reaches_no_servicer(system: System, transport: str) -> None:
    before = len(system.echo.seen)
    failed = failure(
        lambda: system.transports[transport].call(SEARCH, request_of(SEARCH), caller(transport), timeout=0)
    )
    assert failed.code is DEADLINE
    assert len(system.echo.seen) == before


def test_the_end_of_the_invocation_is_a_deadline_too(system: System) -> None:
    client = LambdaClient(LambdaServer(system.registry).handle, seconds=0.1)
    transport = Stubs(LambdaChannel(client, "magpie-x"))
    metadata = caller("lambda", test_sleep="0.3")
    failed = failure(lambda: transport.call(SEARCH, request_of(SEARCH), metadata, timeout=20))
    assert failed.code is DEADLINE
    _, _, left = system.last()
    assert left is not None
    assert left <= 0.1


@pytest.mark.parametrize("transport", ALL)
def test_a_trace_id_is_made_where_none_came(system: System, transport: str) -> None:
    made = set()
    for _ in range(2):
        system.transports[transport].call(SEARCH, request_of(SEARCH), caller(transport))
        made.add(system.last()[1].trace_id)
    assert len(made) == 2
    assert "" not in made


@pytest.mark.parametrize("name", ["x-request-id", "traceparent"])
@pytest.mark.parametrize("transport", ALL)
def test_a_foreign_trace_id_is_taken(system: System, transport: str, name: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    system.transports[transport].call(SEARCH, request_of(SEARCH), caller(transport) | {name: trace})
    assert system.last()[1].trace_id == trace


def test_customer_trace_and_deadline_survive_several_hops(system: System) -> None:
    """Native -> in process -> Lambda, each hop by `outgoing()` and `remaining()`, as between stages."""
    hops: list[CallContext] = []

    def registry_with_onward(onward: Any) -> ServicerRegistry:
        class Hop(visual_search_pb2_grpc.VisualSearchServiceServicer):
            def Search(self, request: SearchRequest, context: Any) -> SearchResponse:  # noqa: N802
                hops.append(context)
                if onward is None:
                    return SearchResponse(query_id="the end")
                stub = visual_search_pb2_grpc.VisualSearchServiceStub(onward)
                answer: SearchResponse = stub.Search(
                    request, timeout=context.remaining(), metadata=context.outgoing()
                )
                return answer

        registry = ServicerRegistry()
        visual_search_pb2_grpc.add_VisualSearchServiceServicer_to_server(Hop(), registry.server)
        return registry

    last = LambdaChannel(LambdaClient(LambdaServer(registry_with_onward(None)).handle), "magpie-x")
    first = registry_with_onward(LocalChannel(registry_with_onward(last)))
    address = f"127.0.0.1:{free_port()}"
    server = native_server.serve(first, address, Authenticator(Directory()))
    with grpc.insecure_channel(address) as channel:
        answer = Stubs(channel).call(
            SEARCH, SearchRequest(), caller("native", x_request_id="one-trace"), timeout=5
        )
    server.stop(None).wait()
    assert answer == SearchResponse(query_id="the end")
    assert [context.customer for context in hops] == ["shop"] * 3
    assert [context.trace_id for context in hops] == ["one-trace"] * 3
    deadlines = [context.deadline or 0 for context in hops]
    assert max(deadlines) - min(deadlines) < 1  # one deadline, not one more for each hop


# --- Who calls ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", PUBLIC)
def test_a_named_customer_is_not_believed_from_outside(system: System, transport: str) -> None:
    metadata = caller(transport, magpie_customer="another")
    system.transports[transport].call(SEARCH, request_of(SEARCH), metadata)
    assert system.last()[1].customer == "shop"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
@pytest.mark.parametrize("transport", PUBLIC)
def test_the_key_may_come_as_bearer_token(system: System, transport: str, scheme: str) -> None:
    metadata = {"authorization": f"{scheme} key-of-another"}
    system.transports[transport].call(SEARCH, request_of(SEARCH), metadata)
    assert system.last()[1].customer == "another"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"magpie-customer": "shop"},
        {"x-api-key": "nobody's"},
        {"authorization": "Bearer nobody's"},
        {"authorization": "Basic key-of-the-shop"},
    ],
    ids=["nothing", "a name", "unknown key", "unknown token", "another scheme"],
)
@pytest.mark.parametrize("transport", PUBLIC)
def test_without_a_good_key_nothing_is_served(system: System, transport: str, metadata: Metadata) -> None:
    before = len(system.echo.seen)
    failed = failure(lambda: system.transports[transport].call(SEARCH, request_of(SEARCH), metadata))
    assert failed.code is grpc.StatusCode.UNAUTHENTICATED
    assert "key-of-the-shop" not in failed.message
    assert "nobody's" not in failed.message
    assert len(system.echo.seen) == before


@pytest.mark.parametrize("transport", PUBLIC)
def test_a_directory_that_is_away_is_unavailable(system: System, transport: str) -> None:
    metadata = {"x-api-key": "the directory is away"}
    failed = failure(lambda: system.transports[transport].call(SEARCH, request_of(SEARCH), metadata))
    assert (failed.code, failed.message) == (grpc.StatusCode.UNAVAILABLE, "Redis does not answer")


@pytest.mark.parametrize("transport", INTERNAL)
def test_between_functions_a_call_without_customer_is_unauthenticated(system: System, transport: str) -> None:
    metadata = {"test-raise": "customer"}
    failed = failure(lambda: system.transports[transport].call(SEARCH, request_of(SEARCH), metadata))
    assert failed.code is grpc.StatusCode.UNAUTHENTICATED


# --- Sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ALL)
def test_a_photo_of_four_megabytes_passes(system: System, transport: str) -> None:
    request = SearchRequest()
    request.image.content = bytes(4_000_000)
    answer = system.transports[transport].call(SEARCH, request, caller(transport))
    assert answer == answer_to(SEARCH, request)


@pytest.mark.parametrize("transport", ["native", "connect json", "connect proto", "grpc-web"])
def test_what_is_too_large_is_refused(system: System, transport: str) -> None:
    request = SearchRequest()
    request.image.content = bytes(8_000_000)
    failed = failure(lambda: system.transports[transport].call(SEARCH, request, caller(transport)))
    assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED


# --- Native gRPC alone ----------------------------------------------------------------------------


def test_health(system: System) -> None:
    with grpc.insecure_channel(system.grpc_address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", *(f"magpie.v1.{name}" for name in GENERATED)):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as failed:
            stub.Check(health_pb2.HealthCheckRequest(service="magpie.v1.NoService"), timeout=5)
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection(system: System) -> None:
    with grpc.insecure_channel(system.grpc_address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {f"magpie.v1.{name}" for name in GENERATED} <= set(database.get_services())
        pool = descriptor_pool.DescriptorPool(database)
        for path, method in METHODS.items():
            service = pool.FindServiceByName(path.split("/")[1])
            reflected = service.FindMethodByName(method.name)
            assert reflected.input_type.full_name == method.input_type.full_name
            assert reflected.output_type.full_name == method.output_type.full_name


def test_a_port_that_is_taken_is_unavailable(system: System) -> None:
    with pytest.raises(Unavailable, match=system.grpc_address):
        native_server.serve(system.registry, system.grpc_address, Authenticator(Directory()))


def test_a_stopping_server_ends_the_call_at_hand(system: System) -> None:
    address = f"127.0.0.1:{free_port()}"
    server = native_server.serve(system.registry, address, Authenticator(Directory()))
    with grpc.insecure_channel(address) as channel:
        stub = visual_search_pb2_grpc.VisualSearchServiceStub(channel)
        before = len(system.echo.seen)
        metadata = tuple(caller("native", test_sleep="0.3").items())
        at_hand = stub.Search.future(SearchRequest(), timeout=10, metadata=metadata)
        give_up = time.monotonic() + 5
        while len(system.echo.seen) == before and time.monotonic() < give_up:
            time.sleep(0.01)
        stopped = server.stop(5)
        assert at_hand.result() == answer_to(SEARCH, SearchRequest())
        assert stopped.wait(5)


# --- HTTP alone -----------------------------------------------------------------------------------


def test_errors_are_connects_json(system: System) -> None:
    headers = {"content-type": "application/json", **caller("connect json", test_raise="4")}
    status, answered, body = system.http("POST", SEARCH, headers, b"{}")
    assert status == 404
    assert answered["content-type"] == "application/json"
    assert json.loads(body) == {"code": "not_found", "message": str(ERRORS[4])}


@pytest.mark.parametrize("url", [False, True])
def test_only_what_is_unavailable_comes_with_advice_when_to_try_again(system: System, url: bool) -> None:
    send = system.transports["url json"].send if url else system.http  # type: ignore[attr-defined]
    for index, error in enumerate(ERRORS):
        headers = {"content-type": "application/json", **caller("connect json", test_raise=str(index))}
        status, answered, _ = send("POST", SEARCH, headers, b"{}")
        unavailable = error.code == "UNAVAILABLE"
        assert (status == 503) == unavailable
        assert answered.get("retry-after") == (str(RETRY_AFTER_SECONDS) if unavailable else None)


def test_a_grpc_client_with_a_retry_policy_waits_as_advised(system: System) -> None:
    """The policy alone would try again at once; the server's advice is a second."""
    policy = {
        "maxAttempts": 2,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.01s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE", "NOT_FOUND"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    with grpc.insecure_channel(
        system.grpc_address, options=[("grpc.service_config", config), ("grpc.enable_retries", 1)]
    ) as channel:
        transport = Stubs(channel)
        for index, seconds in ((4, 0.0), (7, 0.9 * RETRY_AFTER_SECONDS)):
            before, start = len(system.echo.seen), time.monotonic()
            failed = failure(
                lambda index=index: transport.call(  # type: ignore[misc]
                    SEARCH, SearchRequest(), caller("native", test_raise=str(index))
                )
            )
            assert failed.code.name == ERRORS[index].code
            assert len(system.echo.seen) - before == 2
            assert time.monotonic() - start >= seconds


def test_a_plain_json_call_needs_nothing_else(system: System) -> None:
    headers = {"content-type": "application/json; charset=utf-8", "x-api-key": "key-of-the-shop"}
    body = b'{"limit": 3, "fieldOfALaterRelease": true, "maxObjects": 2}'
    status, _, answer = system.http("POST", SEARCH, headers, body)
    assert status == 200
    expected = answer_to(SEARCH, SearchRequest(limit=3, max_objects=2))
    assert json_format.Parse(answer, SearchResponse()) == expected


@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_somebody_is_home(system: System, path: str) -> None:
    status, answered, body = system.http("GET", path, {}, b"")
    assert (status, answered["content-type"]) == (200, "application/json")
    assert SEARCH in json.loads(body)["methods"]


def test_only_post_calls(system: System) -> None:
    status, _, _ = system.http("GET", SEARCH, caller("connect json"), b"")
    assert status == 405


def test_a_browser_of_another_origin_may_call(system: System) -> None:
    asks = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key",
    }
    status, answered, _ = system.http("OPTIONS", SEARCH, asks, b"")
    assert status == 204
    assert answered["access-control-allow-origin"] == "*"
    assert "POST" in answered["access-control-allow-methods"]
    for name in ("content-type", "x-api-key", "authorization"):
        assert name in answered["access-control-allow-headers"]
    for raises in ({}, {"test-raise": "4"}):
        headers = {"content-type": "application/json", "origin": asks["origin"], **caller("connect json")}
        _, answered, _ = system.http("POST", SEARCH, headers | raises, b"{}")
        assert answered["access-control-allow-origin"] == "*"


def test_behind_a_function_url_the_url_alone_answers_browsers(system: System) -> None:
    """Two `access-control-allow-origin` headers are one too many for a browser."""
    url: Connect = system.transports["url json"]  # type: ignore[assignment]
    headers = {"content-type": "application/json", **caller("url json")}
    status, answered, _ = url.send("POST", SEARCH, headers, b"{}")
    assert status == 200
    assert not [name for name in answered if name.startswith("access-control-")]


# --- Lambda alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [{}, {"Records": []}, {"requestContext": {}}, {"hello": "world"}])
def test_an_event_of_another_kind_is_refused(system: System, event: dict[str, Any]) -> None:
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 1000)
    with pytest.raises(InvalidArgument):
        LambdaServer(system.registry).handle(event, context)
