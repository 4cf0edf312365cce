"""One function on its schedule: `python -m local.schedule compaction SECONDS HEARTBEAT_FILE`.

It does what EventBridge does on AWS: invokes the function's own handler again and again. What a handler
raises is in the log, and the next invocation comes as if nothing had been.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local.home import PREFIX
from local.lambda_context import LambdaContext

TIMEOUT_SECONDS = 120.0  # that the function is told; nobody ends it

Handler = Callable[[dict[str, Any], LambdaContext], Any]
log = logging.getLogger("local.schedule")


class Schedule:
    """Invokes a handler every `seconds` until told to stop."""

    def __init__(self, function: str, handler: Handler, seconds: float, heartbeat: Path) -> None:
        self._name = f"{PREFIX}-{function}"
        self._handler = handler
        self._seconds = seconds
        self._heartbeat = heartbeat
        self._stopped = threading.Event()

    def stop(self, *_: Any) -> None:
        """Finish the invocation at hand, then end."""
        self._stopped.set()

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped.is_set():
            self._heartbeat.touch()
            try:
                self._handler({}, LambdaContext(self._name, TIMEOUT_SECONDS))
            except Exception:  # as in Lambda, whatever a handler raises ends the invocation and not its host
                log.exception("%s failed", self._name)
            self._heartbeat.touch()
            self._stopped.wait(self._seconds)


def main() -> None:
    """Run the function that is named."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    function, seconds, heartbeat = sys.argv[1:]
    handler: Handler = importlib.import_module(f"functions.{function}.app").handler
    schedule = Schedule(function, handler, float(seconds), Path(heartbeat))
    signal.signal(signal.SIGTERM, schedule.stop)
    signal.signal(signal.SIGINT, schedule.stop)
    schedule.run()


if __name__ == "__main__":
    main()
