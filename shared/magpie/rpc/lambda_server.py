"""A registry behind Lambda: direct invocations, the batches of a queue, requests of a function URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from magpie.errors import InvalidArgument
from magpie.rpc.invocation import answer
from magpie.rpc.registry import ServicerRegistry


class BatchHandler(Protocol):
    """What takes the batches of a queue."""

    def handle(self, event: Mapping[str, Any], lambda_context: Any) -> dict[str, Any]:
        """A batch in, the items to deliver again out."""


HttpHandler = Callable[[dict[str, Any], Any], dict[str, Any]]


class LambdaServer:
    """Tells by its form what an event is."""

    def __init__(
        self,
        registry: ServicerRegistry,
        batches: BatchHandler | None = None,
        http: HttpHandler | None = None,
    ) -> None:
        self._registry = registry
        self._batches = batches
        self._http = http

    def handle(self, event: dict[str, Any], lambda_context: Any) -> dict[str, Any]:
        """One invocation. Raises InvalidArgument for an event that this function does not take."""
        if "rpc" in event:
            seconds_left = lambda_context.get_remaining_time_in_millis() / 1000
            return answer(self._registry, event, seconds_left)
        if self._batches is not None and "Records" in event:
            return self._batches.handle(event, lambda_context)
        if self._http is not None and "requestContext" in event:
            return self._http(event, lambda_context)
        raise InvalidArgument("event", f"is nothing that this function takes; its fields are {sorted(event)}")
