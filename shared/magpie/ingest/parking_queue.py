"""The dead-letter queue into which a function itself puts events that keep failing, with the reason."""

from __future__ import annotations

from typing import Any

from magpie.errors import MagpieError
from magpie.store.aws_connection import aws_answers

_REASON_CHARACTERS = 1000


class ParkingQueue:
    """`sqs` is a boto3 client. Without a `url` nothing is parked."""

    def __init__(self, sqs: Any, url: str, max_receives: int) -> None:
        self._sqs = sqs
        self._url = url
        self._max_receives = max_receives

    def is_for(self, error: MagpieError, attempts: int) -> bool:
        """Whether an event that failed so is parked now: no retry cures it, or it failed too often."""
        return bool(self._url) and (not error.retryable or attempts >= self._max_receives)

    def park(self, body: str, error: MagpieError, attempts: int) -> None:
        """Raises Unavailable while SQS does not answer."""
        texts = {"reason": str(error), "code": error.code, "attempts": str(attempts)}
        with aws_answers("the parking queue"):
            self._sqs.send_message(
                QueueUrl=self._url,
                MessageBody=body,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": _attribute(text)}
                    for name, text in texts.items()
                },
            )


def _attribute(text: str) -> str:
    """SQS refuses control characters and empty values."""
    return "".join(c if c.isprintable() else " " for c in text[:_REASON_CHARACTERS]) or "-"
