"""Generated stubs over a registry in the same process: nothing is serialised, nothing leaves the thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from magpie.errors import MagpieError
from magpie.rpc.context import CallContext
from magpie.rpc.registry import ServicerRegistry
from magpie.rpc.status import call_failed


class LocalChannel:
    """What a generated stub needs of a channel. Callers are trusted: the customer is the metadata's."""

    def __init__(self, registry: ServicerRegistry) -> None:
        self._registry = registry

    def unary_unary(self, path: str, *_serializers: Any, **_options: Any) -> Callable[..., Message]:
        """Called by generated code, once a method."""

        def call(
            request: Message,
            timeout: float | None = None,
            metadata: Iterable[tuple[str, str]] = (),
        ) -> Message:
            try:
                return self._registry.invoke(path, request, CallContext.of_call(metadata, timeout))
            except MagpieError as error:
                raise call_failed(error) from error

        return call
