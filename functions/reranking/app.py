"""Lambda handler of the reranking stage: direct invocations."""

from __future__ import annotations

from typing import Any

from magpie.bootstrap import application


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """One invocation."""
    return application().reranking_server().handle(event, context)
