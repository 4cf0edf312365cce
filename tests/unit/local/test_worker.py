"""A worker between a queue and a handler. The queue is a real one's interface, in memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from botocore.exceptions import EndpointConnectionError

from local.worker import RETRY_SECONDS, Worker


class Queue:
    """Answers as SQS does; stops the worker when it has nothing more to give."""

    def __init__(self, *polls: list[dict[str, Any]] | Exception) -> None:
        self.polls = list(polls)
        self.deleted: list[str] = []
        self.delayed: dict[str, int] = {}
        self.worker: Worker | None = None

    def get_queue_url(self, QueueName: str) -> dict[str, str]:  # noqa: N803 - as boto3 names it
        return {"QueueUrl": f"http://queue/{QueueName}"}

    def receive_message(self, **_: Any) -> dict[str, Any]:
        if len(self.polls) == 1:
            assert self.worker is not None
            self.worker.stop(15, None)
        poll = self.polls.pop(0)
        if isinstance(poll, Exception):
            raise poll
        return {"Messages": poll}

    def delete_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> None:  # noqa: N803
        self.deleted += [entry["ReceiptHandle"] for entry in Entries]

    def change_message_visibility_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> None:  # noqa: N803
        self.delayed |= {entry["ReceiptHandle"]: entry["VisibilityTimeout"] for entry in Entries}


def message(name: str, attempts: int = 1) -> dict[str, Any]:
    return {
        "MessageId": name,
        "ReceiptHandle": f"handle-{name}",
        "Body": f"body of {name}",
        "MD5OfBody": "0",
        "Attributes": {"ApproximateReceiveCount": str(attempts)},
        "MessageAttributes": {"reason": {"StringValue": "why", "DataType": "String"}},
    }


def run(queue: Queue, handler: Any, heartbeat: Path) -> None:
    queue.worker = Worker("detection", handler, queue, heartbeat)
    thread = threading.Thread(target=queue.worker.run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_what_failed_stays_and_the_rest_is_deleted(tmp_path: Path) -> None:
    events = []

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        events.append(event)
        assert 0 < context.get_remaining_time_in_millis() <= 30_000
        assert context.function_name == "magpie-detection"
        return {"batchItemFailures": [{"itemIdentifier": "b"}]}

    queue = Queue([message("a"), message("b", attempts=2), message("c")])
    run(queue, handler, tmp_path / "heartbeat")
    assert queue.deleted == ["handle-a", "handle-c"]
    assert queue.delayed == {"handle-b": RETRY_SECONDS[1]}
    assert (tmp_path / "heartbeat").exists()
    (event,) = events
    first = event["Records"][0]
    assert (first["messageId"], first["body"], first["eventSource"]) == ("a", "body of a", "aws:sqs")
    assert first["attributes"]["ApproximateReceiveCount"] == "1"
    assert first["messageAttributes"] == {"reason": {"stringValue": "why", "dataType": "String"}}


def test_a_handler_that_raises_fails_its_batch_and_not_the_worker(tmp_path: Path) -> None:
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        if event["Records"][0]["messageId"] == "a":
            raise RuntimeError("broken")
        return {"batchItemFailures": []}

    queue = Queue([message("a", attempts=9)], [message("b")])
    run(queue, handler, tmp_path / "heartbeat")
    assert queue.deleted == ["handle-b"]
    assert queue.delayed == {"handle-a": RETRY_SECONDS[-1]}


def test_a_queue_that_is_away_is_waited_for(tmp_path: Path) -> None:
    queue = Queue(EndpointConnectionError(endpoint_url="http://queue"), [message("a")])
    run(queue, lambda event, context: {"batchItemFailures": []}, tmp_path / "heartbeat")
    assert queue.deleted == ["handle-a"]
