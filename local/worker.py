"""One function behind its queue: `python -m local.worker detection HEARTBEAT_FILE`.

It does what Lambda's event source does on AWS: takes up to ten messages, invokes the function's own handler,
deletes what the handler did not report as failed, and slows down while everything fails.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.home import PREFIX, REGION
from local.lambda_context import ACCOUNT, LambdaContext
from local.resources import VISIBILITY_SECONDS

BATCH = 10
POLL_SECONDS = 2  # a long poll returns at once when there is a message
LONGEST_PAUSE_SECONDS = 15.0
# Until the next attempt at one message, by the number of attempts so far. The five that an event has take
# about a minute, so that it outlives a Redis that is away for a while.
RETRY_SECONDS = (2, 5, 15, 30)

Handler = Callable[[dict[str, Any], LambdaContext], Any]
log = logging.getLogger("local.worker")


class Worker:
    """Polls one queue until told to stop."""

    def __init__(self, function: str, handler: Handler, sqs: Any, heartbeat: Path) -> None:
        self._name = f"{PREFIX}-{function}"
        self._handler = handler
        self._sqs = sqs
        self._heartbeat = heartbeat
        self._queue = ""
        self._stopping = False

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Finish the batch at hand, then end."""
        self._stopping = True

    def run(self) -> None:
        """Poll, handle, delete. While AWS is away or every event fails, pause longer and longer."""
        pause = 0.0
        while not self._stopping:
            try:
                progress = self._poll_once()
            except (BotoCoreError, ClientError) as problem:
                log.warning("%s waits for AWS: %s", self._name, problem)
                self._queue = ""  # after a restart of AWS it may have another address
                progress = False
            self._heartbeat.touch()
            pause = 0.0 if progress else min(max(0.25, pause * 2), LONGEST_PAUSE_SECONDS)
            self._sleep(pause)

    def _poll_once(self) -> bool:
        """One batch. False if there was one and nothing of it could be done."""
        if not self._queue:
            self._queue = self._sqs.get_queue_url(QueueName=self._name)["QueueUrl"]
        messages = self._sqs.receive_message(
            QueueUrl=self._queue,
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=POLL_SECONDS,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        if not messages:
            return True
        failed = self._failed(messages)
        self._delete([message for message in messages if message["MessageId"] not in failed])
        self._retry_later([message for message in messages if message["MessageId"] in failed])
        return len(failed) < len(messages)

    def _failed(self, messages: Sequence[dict[str, Any]]) -> set[str]:
        event = {"Records": [self._record(message) for message in messages]}
        context = LambdaContext(self._name, timeout_seconds=VISIBILITY_SECONDS)
        try:
            answer = self._handler(event, context)
        except Exception:  # as in Lambda, whatever a handler raises fails its batch and not its host
            log.exception("%s failed a batch of %d", self._name, len(messages))
            return {message["MessageId"] for message in messages}
        return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message as Lambda's event source gives it to a function."""
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message.get("Attributes", {}),
            "messageAttributes": {
                name: {"stringValue": value.get("StringValue"), "dataType": value["DataType"]}
                for name, value in message.get("MessageAttributes", {}).items()
            },
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self._name}",
            "awsRegion": REGION,
        }

    def _delete(self, messages: Sequence[dict[str, Any]]) -> None:
        if messages:
            self._sqs.delete_message_batch(QueueUrl=self._queue, Entries=_entries(messages))

    def _retry_later(self, messages: Sequence[dict[str, Any]]) -> None:
        if not messages:
            return
        entries = _entries(messages)
        for entry, message in zip(entries, messages, strict=True):
            attempts = int(message["Attributes"]["ApproximateReceiveCount"])
            entry["VisibilityTimeout"] = RETRY_SECONDS[min(attempts, len(RETRY_SECONDS)) - 1]
        self._sqs.change_message_visibility_batch(QueueUrl=self._queue, Entries=entries)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.25))


def _entries(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"Id": str(place), "ReceiptHandle": message["ReceiptHandle"]}
        for place, message in enumerate(messages)
    ]


def main() -> None:
    """Run the worker of the function that is named."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    function, heartbeat = sys.argv[1:]
    handler: Handler = importlib.import_module(f"functions.{function}.app").handler
    # Without retries of its own: the loop above has them, and says so in the log.
    sqs = boto3.client("sqs", config=Config(retries={"total_max_attempts": 1}, connect_timeout=2))
    worker = Worker(function, handler, sqs, Path(heartbeat))
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop)
    worker.run()


if __name__ == "__main__":
    main()
