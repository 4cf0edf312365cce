"""Lambda handler of change-overs: each minute it sends pictures that a customer's other index lacks."""

from __future__ import annotations

from typing import Any

from magpie.bootstrap import application


def handler(_event: dict[str, Any], context: Any) -> dict[str, int]:
    """One invocation of the schedule."""
    sent = application().re_embedding.run(lambda: context.get_remaining_time_in_millis() / 1000)
    return {"sent": sent}
