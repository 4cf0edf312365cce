"""lambda:Invoke, when it does not go well; the good case is the contract test's."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from magpie.rpc.lambda_channel import LambdaChannel
from magpie.v1.detection_pb2 import DetectRequest
from magpie.v1.detection_pb2_grpc import DetectionServiceStub

CRASHED = {"errorType": "KeyError", "errorMessage": "a secret", "stackTrace": ["/var/task/app.py"]}


class Client:
    """Answers, or raises, as told; keeps what it was sent."""

    def __init__(self, answer: Callable[[], dict[str, Any]]) -> None:
        self._answer = answer
        self.sent: list[dict[str, Any]] = []

    def invoke(self, **sent: Any) -> dict[str, Any]:
        """As boto3's."""
        self.sent.append(sent)
        return self._answer()


def raising(error: Exception) -> Callable[[], dict[str, Any]]:
    def answer() -> dict[str, Any]:
        raise error

    return answer


def broken(payload: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(payload).encode())}


def failure(client: Client, timeout: float | None = None) -> tuple[grpc.StatusCode, str]:
    channel: Any = LambdaChannel(client, "magpie-detection")
    stub: Any = DetectionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as failed:
        stub.Detect(DetectRequest(), timeout=timeout)
    return failed.value.code(), failed.value.details() or ""


def client_error(code: str, status: int) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Invoke")


def test_the_payload_names_all_that_travels() -> None:
    client = Client(lambda: {"Payload": io.BytesIO(b'{"status": {"code": "OK", "message": ""}, "body": ""}')})
    channel: Any = LambdaChannel(client, "magpie-detection")
    stub: Any = DetectionServiceStub(channel)
    stub.Detect(DetectRequest(max_objects=3), timeout=1.5, metadata=(("magpie-customer", "shop"),))
    (sent,) = client.sent
    assert sent["FunctionName"] == "magpie-detection"
    assert json.loads(sent["Payload"]) == {
        "rpc": {
            "method": "/magpie.v1.DetectionService/Detect",
            "metadata": {"magpie-customer": "shop"},
            "timeout_ms": 1500,
            "body": "GAM=",  # field 3, varint, 3
        }
    }


@pytest.mark.parametrize(
    "error",
    [
        client_error("TooManyRequestsException", 429),
        client_error("ServiceException", 500),
        ReadTimeoutError(endpoint_url="https://lambda"),
    ],
)
def test_a_function_that_cannot_be_reached_is_unavailable(error: Exception) -> None:
    code, message = failure(Client(raising(error)))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "magpie-detection" in message


def test_a_function_that_broke_off_is_unavailable() -> None:
    code, message = failure(Client(broken(CRASHED)))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "magpie-detection" in message


def test_a_crash_keeps_its_secrets() -> None:
    _, message = failure(Client(broken(CRASHED)))
    assert "secret" not in message
    assert "/var/task" not in message


def test_a_function_that_ran_out_of_its_time_is_deadline_exceeded() -> None:
    timed_out = {"errorMessage": "2026-11-24T09:00:00Z 1-2 Task timed out after 30.00 seconds"}
    code, _ = failure(Client(broken(timed_out)))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
