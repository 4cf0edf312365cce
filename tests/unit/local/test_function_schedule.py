"""A function on its schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from local.schedule import TIMEOUT_SECONDS, Schedule


def test_a_failed_invocation_is_followed_by_the_next(tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    beats: list[float] = []

    def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
        assert event == {}
        assert 0 < context.get_remaining_time_in_millis() <= TIMEOUT_SECONDS * 1000
        assert context.function_name == "magpie-compaction"
        beats.append(heartbeat.stat().st_mtime)
        if len(beats) == 1:
            raise RuntimeError("broken")
        if len(beats) == 3:
            schedule.stop(15, None)
        return {}

    schedule = Schedule("compaction", handler, 0.01, heartbeat)
    schedule.run()
    assert len(beats) == 3
    assert beats == sorted(beats)
