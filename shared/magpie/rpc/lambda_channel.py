"""Generated stubs over `lambda:Invoke`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from google.protobuf.message import Message

from magpie.rpc.invocation import request_payload, response_body
from magpie.rpc.status import CallFailed


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
            answer = self._client.invoke(FunctionName=self._function, Payload=json.dumps(payload).encode())
            text = answer["Payload"].read()
        except (BotoCoreError, ClientError) as error:
            raise CallFailed("UNAVAILABLE", f"function {self._function} does not answer: {error}") from error
        if answer.get("FunctionError"):  # it crashed or timed out, rather than answered with a status
            raise CallFailed("UNAVAILABLE", f"function {self._function} broke off: {text[:500].decode()}")
        parsed: dict[str, Any] = json.loads(text)
        return parsed
