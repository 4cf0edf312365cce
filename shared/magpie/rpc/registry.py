"""One table of methods that every transport reads.

The generated `add_*Servicer_to_server` functions take it for a server: what they register is served by native
gRPC, by Lambda, in process and over HTTP alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from magpie.errors import DeadlineExceeded, InvalidArgument, MagpieError, Unimplemented
from magpie.rpc.context import CallContext

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """One method of one servicer."""

    path: str  # `/magpie.v1.DetectionService/Detect`
    behaviour: Callable[[Any, CallContext], Message]
    deserialize: Callable[[bytes], Message]
    serialize: Callable[[Message], bytes]

    @property
    def service(self) -> str:
        """Full name, `magpie.v1.DetectionService`."""
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        """`Detect`."""
        return self.path.split("/")[2]


Observer = Callable[[str, CallContext], AbstractContextManager[None]]


@contextmanager
def unobserved(_path: str, _context: CallContext) -> Iterator[None]:
    """Calls leave no trace."""
    yield


class ServicerRegistry:
    """Methods by path. `observe` wraps every call (logs, metrics)."""

    def __init__(self, observe: Observer = unobserved) -> None:
        self.methods: dict[str, Method] = {}
        self._observe = observe

    @property
    def server(self) -> Any:
        """Itself, for generated code, which asks for a grpc.Server and calls the two methods below."""
        return self

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Called by generated code."""
        for name, handler in handlers.items():
            if handler.unary_unary.__module__.endswith("_pb2_grpc"):
                continue  # the generated base class: the servicer does not have this method
            path = f"/{service}/{name}"
            self.methods[path] = Method(
                path, handler.unary_unary, handler.request_deserializer, handler.response_serializer
            )

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Called by generated code, with what `add_registered_method_handlers` has taken already."""

    def services(self) -> list[str]:
        """Full names of the services that have methods here."""
        return sorted({method.service for method in self.methods.values()})

    def method(self, path: str) -> Method:
        """Raises Unimplemented."""
        try:
            return self.methods[path]
        except KeyError:
            raise Unimplemented(
                f"no method {path} here; there are {', '.join(sorted(self.methods))}"
            ) from None

    def invoke(self, path: str, request: Message, context: CallContext) -> Message:
        """Call a method by message. Raises MagpieError and nothing else."""
        method = self.method(path)
        with self._observe(path, context), _only_our_errors(path, context):
            _check_deadline(context)
            response = method.behaviour(request, context)
            _check_deadline(context)
            return response

    def invoke_bytes(self, path: str, body: bytes, context: CallContext) -> bytes:
        """The same by serialised message. Raises MagpieError and nothing else."""
        method = self.method(path)
        try:
            request = method.deserialize(body)
        except DecodeError as error:
            raise InvalidArgument("body", f"is no serialised request of {path}") from error
        return method.serialize(self.invoke(path, request, context))


def _check_deadline(context: CallContext) -> None:
    if context.expired():
        raise DeadlineExceeded("the caller's deadline has passed")


@contextmanager
def _only_our_errors(path: str, context: CallContext) -> Iterator[None]:
    """The last line of defence: what nobody foresaw becomes INTERNAL, its details stay in the log."""
    try:
        yield
    except MagpieError:
        raise
    except Exception as error:
        _log.exception("%s failed, trace %s", path, context.trace_id)
        raise MagpieError(f"internal error ({type(error).__name__}), trace {context.trace_id}") from error
