"""What a Lambda function is told about its invocation."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field

from local.home import REGION

ACCOUNT = "000000000000"


@dataclass(frozen=True)
class LambdaContext:
    """The context object of Lambda's Python runtime, as far as Magpie and Powertools read it."""

    function_name: str
    timeout_seconds: float
    memory_limit_in_mb: int = 1769
    function_version: str = "$LATEST"
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    _started: float = field(default_factory=time.monotonic)

    @property
    def invoked_function_arn(self) -> str:
        """The function's name in full."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.function_name}"

    @property
    def log_group_name(self) -> str:
        """Where AWS would keep its log."""
        return f"/aws/lambda/{self.function_name}"

    @property
    def log_stream_name(self) -> str:
        """There is one."""
        return "local"

    def get_remaining_time_in_millis(self) -> int:
        """Before the function would be stopped."""
        left = self.timeout_seconds - (time.monotonic() - self._started)
        return max(0, int(left * 1000))
