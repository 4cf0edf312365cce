"""The table of methods."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from magpie.errors import InvalidArgument, MagpieError, NotFound, Unimplemented
from magpie.rpc.context import CallContext
from magpie.rpc.registry import ServicerRegistry
from magpie.v1.detection_pb2 import DetectRequest, DetectResponse
from magpie.v1.detection_pb2_grpc import DetectionServiceServicer, add_DetectionServiceServicer_to_server

DETECT = "/magpie.v1.DetectionService/Detect"
DETECT_UPLOADED = "/magpie.v1.DetectionService/DetectUploaded"


class Detection(DetectionServiceServicer):
    """Has one of the service's two methods. `max_objects` asks for an error."""

    def Detect(self, request: DetectRequest, context: Any) -> DetectResponse:  # noqa: N802
        match request.max_objects:
            case 1:
                raise NotFound("no such upload")
            case 2:
                raise KeyError("secret")
        return DetectResponse(width=request.max_objects)


def registry_of(**options: Any) -> ServicerRegistry:
    registry = ServicerRegistry(**options)
    servicer: Any = Detection  # in type checkers' eyes abstract, since it lacks a method
    add_DetectionServiceServicer_to_server(servicer(), registry.server)
    return registry


def test_generated_code_fills_it() -> None:
    registry = registry_of()
    assert registry.services() == ["magpie.v1.DetectionService"]
    method = registry.method(DETECT)
    assert (method.service, method.name) == ("magpie.v1.DetectionService", "Detect")


def test_a_message_passes_by_reference_and_bytes_are_decoded() -> None:
    registry = registry_of()
    assert registry.invoke(DETECT, DetectRequest(max_objects=7), CallContext()) == DetectResponse(width=7)
    body = registry.invoke_bytes(DETECT, DetectRequest(max_objects=7).SerializeToString(), CallContext())
    assert DetectResponse.FromString(body) == DetectResponse(width=7)


def test_what_cannot_be_called() -> None:
    registry = registry_of()
    with pytest.raises(Unimplemented, match="/No/Such"):
        registry.invoke("/No/Such", DetectRequest(), CallContext())
    with pytest.raises(InvalidArgument, match="Detect"):
        registry.invoke_bytes(DETECT, b"\xff", CallContext())


def test_what_a_servicer_does_not_override_is_unimplemented() -> None:
    registry = registry_of()
    with pytest.raises(Unimplemented):
        registry.invoke_bytes(DETECT_UPLOADED, b"", CallContext())


def test_what_nobody_foresaw_is_logged_and_keeps_its_secrets(caplog: pytest.LogCaptureFixture) -> None:
    context = CallContext(trace_id="trace")
    with caplog.at_level(logging.ERROR), pytest.raises(MagpieError) as raised:
        registry_of().invoke(DETECT, DetectRequest(max_objects=2), context)
    assert (raised.value.code, raised.value.retryable) == ("INTERNAL", True)
    assert str(raised.value) == "internal error (KeyError), trace trace"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "trace" in record.getMessage()


def test_an_observer_sees_every_outcome() -> None:
    outcomes = []

    @contextmanager
    def observe(path: str, context: CallContext) -> Iterator[None]:
        try:
            yield
        except MagpieError as error:
            outcomes.append((path, context.customer, error.code))
            raise
        else:
            outcomes.append((path, context.customer, "OK"))

    registry = registry_of(observe=observe)
    for asked in (0, 1, 2):
        try:
            registry.invoke(DETECT, DetectRequest(max_objects=asked), CallContext(customer="shop"))
        except MagpieError as error:
            assert asked > 0, error
    with pytest.raises(MagpieError):
        registry.invoke(DETECT, DetectRequest(), CallContext(customer="shop", deadline=0.0))
    codes = ["OK", "NOT_FOUND", "INTERNAL", "DEADLINE_EXCEEDED"]
    assert outcomes == [(DETECT, "shop", code) for code in codes]
