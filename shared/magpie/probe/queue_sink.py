"""Sampled searches to the probe's queue, on a thread of their own.

A message takes SQS some milliseconds, and a query should not wait for them: the search stage only puts what
it has into a short queue in memory. What does not fit, or fails, is dropped and counted: a sample can spare
it. SQS and no list in Redis, though that would be quicker: a queue delivers again and parks, wakes nobody
while nobody searches, and takes nothing of the memory that the catalogue lives in.

Lambda stops the thread with its process between two invocations; it goes on with the next.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from magpie.probe.message import body_of
from magpie.probe.sampling import Answered, sampled_search

WAITING = 16  # sampled searches in memory; each has an answer with all its candidates

_log = logging.getLogger(__name__)


class QueueSink:
    """`sqs` makes a boto3 client whose calls should give up soon; `lost` is told of each search dropped."""

    def __init__(self, sqs: Callable[[], Any], queue_url: str, lost: Callable[[], None]) -> None:
        self._sqs = sqs
        self._url = queue_url
        self._lost = lost
        self._waiting: queue.Queue[Answered] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def offer(self, answered: Answered) -> None:
        """Takes microseconds."""
        try:
            self._waiting.put_nowait(answered)
        except queue.Full:
            self._lost()
            return
        if self._thread is None:  # not before: a thread does not outlive a snapshot of the process
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._send_all, name="probe", daemon=True)
                    self._thread.start()

    def flush(self) -> None:
        """Wait until everything that was taken is sent or dropped."""
        self._waiting.join()

    def _send_all(self) -> None:
        client = None
        while True:
            answered = self._waiting.get()
            try:
                client = client or self._sqs()
                client.send_message(QueueUrl=self._url, MessageBody=body_of(sampled_search(answered)))
            except Exception:  # whatever is wrong with one, the thread goes on to the next
                _log.warning("a sampled search was dropped, trace %s", answered.trace_id, exc_info=True)
                self._lost()
            finally:
                self._waiting.task_done()
