"""Lambda handler of compaction: each minute it looks for indexes whose snapshots lack too much."""

from __future__ import annotations

from typing import Any

from magpie.bootstrap import application


def handler(_event: dict[str, Any], context: Any) -> dict[str, int]:
    """One invocation of the schedule."""
    app = application()
    outcome = app.compaction.run(
        app.customers.customers(), lambda: context.get_remaining_time_in_millis() / 1000
    )
    return {"compacted": len(outcome.compacted), "elsewhere": len(outcome.elsewhere)}
