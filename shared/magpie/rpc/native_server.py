"""The public services over native gRPC (grpcio), with health and reflection."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from magpie.errors import MagpieError, Unavailable
from magpie.rpc.auth import Authenticator
from magpie.rpc.context import CallContext
from magpie.rpc.registry import ServicerRegistry
from magpie.rpc.status import RETRY_AFTER_SECONDS, details, status_code

MAX_MESSAGE_BYTES = 5 * 2**20  # a 4 MB photo and its request


def serve(
    registry: ServicerRegistry, address: str, authenticator: Authenticator, threads: int = 8
) -> grpc.Server:
    """A started server. Raises Unavailable if `address` (`host:port`) is taken."""
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),  # a second server on the port is a mistake, not a helper
        ],
    )
    server.add_generic_rpc_handlers((_RegistryHandler(registry, authenticator),))
    status = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    for service in ("", *registry.services()):
        status.set(service, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        (*registry.services(), health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise Unavailable(f"cannot listen on {address}: {error}") from error
    server.start()
    return server


class _RegistryHandler(grpc.GenericRpcHandler):
    """Bytes in, bytes out: what cannot be read is INVALID_ARGUMENT here as on every transport."""

    def __init__(self, registry: ServicerRegistry, authenticator: Authenticator) -> None:
        self._registry = registry
        self._authenticator = authenticator

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        if details.method not in self._registry.methods:
            return None
        return grpc.unary_unary_rpc_method_handler(self._behaviour(details.method))

    def _behaviour(self, path: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def behave(body: bytes, call: grpc.ServicerContext) -> bytes:
            metadata = [(key, value) for key, value in call.invocation_metadata() if isinstance(value, str)]
            try:
                customer = self._authenticator.customer(dict(metadata))
                context = CallContext.of_call(metadata, _timeout(call), customer)
                return self._registry.invoke_bytes(path, body, context)
            except MagpieError as error:
                if isinstance(error, Unavailable):  # what gRPC's own retry policies go by
                    call.set_trailing_metadata((("grpc-retry-pushback-ms", str(1000 * RETRY_AFTER_SECONDS)),))
                call.abort(status_code(error), details(error))
                raise AssertionError("abort raises") from error

        return behave


def _timeout(call: grpc.ServicerContext) -> float | None:
    """Seconds; grpcio gives a huge number or None where the caller set no deadline."""
    remaining = call.time_remaining()
    return None if remaining is None or remaining > 10**8 else remaining
