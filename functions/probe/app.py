"""Lambda handler of the recall probe: the batches of its queue."""

from __future__ import annotations

from typing import Any

from magpie.bootstrap import application


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """One invocation."""
    return application().probe().handle(event, context)
