"""Generated stubs over `lambda:Invoke`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from magpie.errors import MagpieError
from magpie.rpc.invocation import request_payload, response_body
from magpie.rpc.status import CallFailed, call_failed
from magpie.store.aws_connection import aws_answers

_log = logging.getLogger(__name__)


class LambdaChannel:
    """`client` is boto3's for Lambda; `function` the name or ARN of the function that answers."""

    def __init__(self, client: Any, function: str) -> None:
        self._client = client
        self._function = function

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Message], bytes],
        response_deserializer: Callable[[bytes], Message],
        **_options: Any,
    ) -> Callable[..., Message]:
        """Called by generated code, once a method."""

        def call(
            request: Message,
            timeout: float | None = None,
            metadata: Iterable[tuple[str, str]] = (),
        ) -> Message:
            payload = request_payload(path, request_serializer(request), timeout, metadata)
            return response_deserializer(response_body(self._invoke(payload)))

        return call

    def _invoke(self, payload: dict[str, Any]) -> dict[str, Any]:
        try:
            with aws_answers(f"function {self._function}"):
                answer = self._client.invoke(
                    FunctionName=self._function, Payload=json.dumps(payload).encode()
                )
                text = answer["Payload"].read()
        except MagpieError as error:
            raise call_failed(error) from error
        if answer.get("FunctionError"):  # it crashed or timed out, rather than answered with a status
            _log.error("function %s broke off: %s", self._function, text[:2000])
            if b"timed out" in text:
                raise CallFailed("DEADLINE_EXCEEDED", f"function {self._function} ran out of time")
            raise CallFailed("UNAVAILABLE", f"function {self._function} broke off; its log says why")
        parsed: dict[str, Any] = json.loads(text)
        return parsed
