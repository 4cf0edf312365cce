"""One contract, every transport: each method of each service answers and fails alike however it is called."""

from __future__ import annotations

import base64
import inspect
import pkgutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import urllib3
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import magpie.v1
from magpie import errors
from magpie.rpc.auth import Authenticator
from magpie.rpc.context import TRACE_ID, CallContext
from magpie.rpc.lambda_channel import LambdaChannel
from magpie.rpc.lambda_server import LambdaServer
from magpie.rpc.native_server import serve
from magpie.rpc.registry import ServicerRegistry
from tests.contract.transports import INVOCATION_SECONDS, TRANSPORTS, Keys, LambdaClient, Transport

MODULES = [
    import_module(f"magpie.v1.{module.name}")
    for module in pkgutil.iter_modules(magpie.v1.__path__)
    if module.name.endswith("_pb2")
]
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ANY = "/magpie.v1.VisualSearchService/Search"

# The metadata by which a test asks the servicer to fail or to be slow.
FAIL, SLEEP = "test-fail", "test-sleep"
TROUBLES: dict[str, Exception] = {
    name: {
        "InvalidArgument": lambda: errors.InvalidArgument("limit", "must be 1 to 100, got 0"),
        "FilterSyntax": lambda: errors.FilterSyntax("price < ü", 8, "a number must stand"),
        "FilterMismatch": lambda: errors.FilterMismatch("grün = 1", 0, "no product has `grün`"),
        "UndecodableImage": lambda: errors.UndecodableImage("50 % of the JPEG is missing"),
    }.get(name, lambda error=error, name=name: error(f"{name}: 100 % “wrong”, naïve\tsecond"))()
    for name, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.MagpieError)
}
SECRET = "password=hunter2"
UNFORESEEN = {"ValueError": ValueError(SECRET), "KeyError": KeyError(SECRET)}


@dataclass
class Calls:
    """What the servicers have seen."""

    requests: list[Message] = field(default_factory=list)
    contexts: list[CallContext] = field(default_factory=list)
    remaining: list[float | None] = field(default_factory=list)

    def answer(self, method: MethodDescriptor, request: Message, context: CallContext) -> Message:
        """The one behaviour of all methods."""
        self.requests.append(request)
        self.contexts.append(context)
        self.remaining.append(context.remaining())
        time.sleep(float(context.metadata.get(SLEEP, 0)))
        if trouble := (TROUBLES | UNFORESEEN).get(context.metadata.get(FAIL, "")):
            raise trouble
        return filled(method.output_type, seed=len(method.name))


def filled(kind: Descriptor, seed: int, depth: int = 4) -> Message:
    """A message whose every field is set, the first of each oneof, down to `depth`."""
    message = message_factory.GetMessageClass(kind)()
    for number, of in enumerate(kind.fields):
        if of.containing_oneof and of.containing_oneof.fields[0] is not of:
            continue
        if of.message_type and of.message_type.GetOptions().map_entry:
            entry = filled(of.message_type, seed + number, depth)
            entries = getattr(message, of.name)
            if of.message_type.fields_by_name["value"].message_type:
                entries[entry.key].CopyFrom(entry.value)  # type: ignore[attr-defined]
            else:
                entries[entry.key] = entry.value  # type: ignore[attr-defined]
        elif of.message_type and depth:
            child = filled(of.message_type, seed + number, depth - 1)
            if of.is_repeated:
                getattr(message, of.name).extend([child, child])
            else:
                getattr(message, of.name).CopyFrom(child)
        elif not of.message_type:
            value = scalar(of, seed + number)
            if of.is_repeated:
                getattr(message, of.name).extend([value, value])
            else:
                setattr(message, of.name, value)
    return message


def scalar(of: FieldDescriptor, seed: int) -> Any:
    """A value that is not the default's and survives JSON and single precision."""
    match of.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = f"{of.name} {seed} é"
            return text.encode() + b"\0\xff" if of.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return seed + 0.5
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_ENUM:
            assert of.enum_type
            return of.enum_type.values[-1].number
    return seed + 1


@pytest.fixture(scope="module")
def calls() -> Calls:
    """Of all tests so far."""
    return Calls()


@pytest.fixture(scope="module")
def registry(calls: Calls) -> ServicerRegistry:
    """All services, through the generated functions."""
    registry = ServicerRegistry()
    for module in MODULES:
        for service in module.DESCRIPTOR.services_by_name.values():
            generated = import_module(f"{module.__name__}_grpc")
            behaviours = {method.name: behaviour(calls, method) for method in service.methods}
            servicer = type(service.name, (getattr(generated, f"{service.name}Servicer"),), behaviours)
            getattr(generated, f"add_{service.name}Servicer_to_server")(servicer(), registry.server)
    return registry


def behaviour(calls: Calls, method: MethodDescriptor) -> Any:
    """A servicer's method."""
    return lambda _self, request, context: calls.answer(method, request, context)


@pytest.fixture(scope="module")
def keys() -> Keys:
    """Two customers."""
    return Keys({"key of shop": "shop", "key of other": "other"})


@pytest.fixture(scope="module", params=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest, registry: ServicerRegistry, keys: Keys) -> Iterator[Transport]:
    """Each in turn."""
    with TRANSPORTS[request.param](registry, keys) as opened:
        yield opened


@pytest.fixture(scope="module")
def native(registry: ServicerRegistry, keys: Keys) -> Iterator[Transport]:
    """Native gRPC alone."""
    with TRANSPORTS["native"](registry, keys) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(registry: ServicerRegistry, keys: Keys) -> Iterator[Transport]:
    """HTTP alone."""
    with TRANSPORTS["connect-json"](registry, keys) as opened:
        yield opened


def stub_method(channel: Any, path: str) -> Any:
    """A method of the generated stub."""
    method = METHODS[path]
    module = next(module for module in MODULES if module.DESCRIPTOR is method.containing_service.file)
    stub = getattr(import_module(f"{module.__name__}_grpc"), f"{method.containing_service.name}Stub")
    return getattr(stub(channel), method.name)


def failure(channel: Any, metadata: Any, timeout: float | None = None) -> tuple[str, str]:
    """Code and message of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        stub_method(channel, ANY)(
            message_factory.GetMessageClass(METHODS[ANY].input_type)(), timeout=timeout, metadata=metadata
        )
    return caught.value.code().name, caught.value.details() or ""


def test_the_contract_has_methods() -> None:
    assert ANY in METHODS
    assert len(METHODS) >= 13


@pytest.mark.parametrize("path", METHODS)
def test_every_method_answers_alike(transport: Transport, calls: Calls, path: str) -> None:
    method = METHODS[path]
    request = filled(method.input_type, seed=1)
    answer = stub_method(transport.channel, path)(request, metadata=transport.calls_as("shop"))
    assert calls.requests[-1] == request
    assert answer == filled(method.output_type, seed=len(method.name))


@pytest.mark.parametrize("name", TROUBLES)
def test_every_error_has_one_code_and_one_message(transport: Transport, name: str) -> None:
    error = TROUBLES[name]
    assert isinstance(error, errors.MagpieError)
    metadata = (*transport.calls_as("shop"), (FAIL, name))
    assert failure(transport.channel, metadata) == (error.code, str(error))


@pytest.mark.parametrize("name", UNFORESEEN)
def test_an_unforeseen_error_keeps_its_details(transport: Transport, name: str) -> None:
    metadata = (*transport.calls_as("shop"), (FAIL, name), (TRACE_ID, "trace-7"))
    code, message = failure(transport.channel, metadata)
    assert code == "INTERNAL"
    assert SECRET not in message
    assert "trace-7" in message  # by which the log has them


def test_a_passed_deadline(transport: Transport) -> None:
    metadata = (*transport.calls_as("shop"), (SLEEP, "0.3"))
    code, _ = failure(transport.channel, metadata, timeout=0.1)
    assert code == "DEADLINE_EXCEEDED"


def test_the_deadline_arrives(transport: Transport, calls: Calls) -> None:
    request = filled(METHODS[ANY].input_type, seed=1)
    stub_method(transport.channel, ANY)(request, timeout=20.0, metadata=transport.calls_as("shop"))
    remaining = calls.remaining[-1]
    assert remaining is not None
    assert 0 < remaining < 25  # grpcio rounds it up on the wire


def test_no_deadline_is_none_but_for_the_invocations_own(transport: Transport, calls: Calls) -> None:
    request = filled(METHODS[ANY].input_type, seed=1)
    stub_method(transport.channel, ANY)(request, metadata=transport.calls_as("shop"))
    remaining = calls.remaining[-1]
    if isinstance(transport.channel, LambdaChannel):
        assert remaining is not None
        assert 0 < remaining <= INVOCATION_SECONDS
    else:
        assert remaining is None


def test_the_customer_and_the_trace_arrive(transport: Transport, calls: Calls) -> None:
    request = filled(METHODS[ANY].input_type, seed=1)
    for customer in ("shop", "other"):
        metadata = (*transport.calls_as(customer), (TRACE_ID, f"trace-of-{customer}"))
        stub_method(transport.channel, ANY)(request, metadata=metadata)
        assert calls.contexts[-1].customer == customer
        assert calls.contexts[-1].trace_id == f"trace-of-{customer}"


@pytest.mark.parametrize(
    "credentials",
    [
        (),
        (("magpie-customer", "shop"),),
        (("x-api-key", "nobody's"),),
        (("authorization", "Bearer nobody's"),),
        (("authorization", "Basic key of shop"),),
    ],
    ids=repr,
)
def test_a_public_transport_wants_a_key(
    transport: Transport, calls: Calls, credentials: tuple[tuple[str, str], ...]
) -> None:
    if not transport.public:
        pytest.skip("callers are trusted")
    before = len(calls.requests)
    code, message = failure(transport.channel, credentials)
    assert code == "UNAUTHENTICATED"
    assert "API key" in message
    assert len(calls.requests) == before


def test_a_bearer_is_a_key(transport: Transport, calls: Calls) -> None:
    if not transport.public:
        pytest.skip("callers are trusted")
    request = filled(METHODS[ANY].input_type, seed=1)
    stub_method(transport.channel, ANY)(request, metadata=(("authorization", "Bearer key of other"),))
    assert calls.contexts[-1].customer == "other"


@pytest.mark.parametrize("path", ["/magpie.v1.VisualSearchService/Nothing", "/magpie.v1.Nothing/Search"])
def test_an_unknown_method(transport: Transport, path: str) -> None:
    request = filled(METHODS[ANY].input_type, seed=1)
    call = transport.channel.unary_unary(path, type(request).SerializeToString, bytes)
    with pytest.raises(grpc.RpcError) as caught:
        call(request, metadata=transport.calls_as("shop"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("name", ["native", "lambda", "connect-proto", "grpc-web"])
def test_an_undecodable_body(name: str, registry: ServicerRegistry, keys: Keys, calls: Calls) -> None:
    before = len(calls.requests)
    with TRANSPORTS[name](registry, keys) as transport:
        call = transport.channel.unary_unary(ANY, lambda _message: b"\xff\xff", bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(filled(METHODS[ANY].input_type, seed=1), metadata=transport.calls_as("shop"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(calls.requests) == before


# --- What only one transport has ---------------------------------------------------------------------------


def test_health(native: Transport) -> None:
    stub: Any = health_pb2_grpc.HealthStub(native.channel)
    for service in ("", "magpie.v1.VisualSearchService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection(native: Transport) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(native.channel)
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="magpie.v1.VisualSearchService"),
    ]
    listed, file = stub.ServerReflectionInfo(iter(questions))
    services = {path.split("/")[1] for path in METHODS}
    assert services <= {service.name for service in listed.list_services_response.service}
    assert file.file_descriptor_response.file_descriptor_proto


def test_a_taken_port_is_said(native: Transport, registry: ServicerRegistry, keys: Keys) -> None:
    with pytest.raises(errors.Unavailable, match=native.base):
        serve(registry, native.base, Authenticator(keys))


def test_the_invocations_end_bounds_the_deadline(registry: ServicerRegistry, calls: Calls) -> None:
    channel = LambdaChannel(LambdaClient(LambdaServer(registry), seconds_left=2.0), "detection")
    request = filled(METHODS[ANY].input_type, seed=1)
    stub_method(channel, ANY)(request, timeout=20.0)
    remaining = calls.remaining[-1]
    assert remaining is not None
    assert 0 < remaining <= 2
    code, _ = failure(LambdaChannel(LambdaClient(LambdaServer(registry), seconds_left=0.0), "f"), ())
    assert code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    "rpc",
    [
        {},
        None,
        [],
        {"method": ANY},
        {"method": ANY, "body": "no base64!"},
        {"method": ANY, "body": base64.b64encode(b"\xff\xff").decode()},
        {"method": ANY, "body": "", "metadata": []},
        {"method": ANY, "body": "", "timeout_ms": "soon"},
    ],
    ids=repr,
)
def test_a_payload_that_is_no_call(registry: ServicerRegistry, rpc: Any) -> None:
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 1000)
    answer = LambdaServer(registry).handle({"rpc": rpc}, context)
    assert answer["status"]["code"] == "INVALID_ARGUMENT"
    assert answer["body"] == ""


def test_a_crashed_function_is_unavailable() -> None:
    class Crashed:
        def invoke(self, **_call: Any) -> dict[str, Any]:
            payload = SimpleNamespace(read=lambda: b'{"errorMessage": "out of memory"}')
            return {"FunctionError": "Unhandled", "Payload": payload}

    code, message = failure(LambdaChannel(Crashed(), "detection"), ())
    assert code == "UNAVAILABLE"
    assert "detection" in message


def test_an_event_of_no_known_form(registry: ServicerRegistry) -> None:
    events: list[dict[str, Any]] = [{}, {"Records": []}, {"requestContext": {}}]
    for event in events:
        with pytest.raises(errors.InvalidArgument):
            LambdaServer(registry).handle(event, None)


def test_health_over_http(http: Transport) -> None:
    answer = urllib3.request("GET", f"{http.base}/healthz")
    assert answer.status == 200
    assert answer.json() == {"status": "serving", "methods": sorted(METHODS)}


def test_a_browser_of_another_origin_may_call(http: Transport) -> None:
    origin = {"origin": "https://shop.example"}
    asked = urllib3.request("OPTIONS", http.base + ANY, headers=origin)
    assert asked.status == 204
    assert "x-api-key" in asked.headers["access-control-allow-headers"]
    headers = {**origin, "x-api-key": "key of shop", "content-type": "application/json"}
    answered = urllib3.request("POST", http.base + ANY, body=b"{}", headers=headers)
    assert answered.status == 200
    assert answered.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("body", [b"", b"{", b'{"limit": {}}', b"\xff"])
def test_json_that_is_no_request(http: Transport, body: bytes) -> None:
    headers = {"x-api-key": "key of shop", "content-type": "application/json"}
    answer = urllib3.request("POST", http.base + ANY, body=body, headers=headers)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_argument")
