"""Lambda handler of the public services: requests of the function URL, and direct invocations."""

from __future__ import annotations

from typing import Any

from magpie.bootstrap import application


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """One invocation."""
    return application().api_server().handle(event, context)
