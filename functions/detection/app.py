"""Lambda handler of the detection stage: direct invocations, and the batches of its queue."""

from __future__ import annotations

from typing import Any

from magpie.bootstrap import application


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """One invocation."""
    return application().detection_server().handle(event, context)
