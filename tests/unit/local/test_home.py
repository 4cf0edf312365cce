"""What a home remembers."""

from __future__ import annotations

import stat
from pathlib import Path

from local.home import Home, Running, RunState


def test_the_run_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    home = Home(tmp_path / "new" / ".magpie")
    snapshots = str(home.snapshots.resolve())
    assert home.run_state() == RunState(snapshots=snapshots)
    home.make()
    state = RunState({"redis": 1, "aws": 2, "grpc": 3, "http": 4}, "", {"api": Running(10, 1.5)}, snapshots)
    home.write_run_state(state)
    assert home.run_state() == state
    assert state.redis_url == "redis://127.0.0.1:1/0"
    assert RunState(own_redis_url="redis://mine").redis_url == "redis://mine"


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    home.write_key("my-shop", "first")
    home.write_key("my-shop", "second")
    assert home.key("my-shop").read_text() == "second\n"
    assert stat.S_IMODE(home.key("my-shop").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.key("my-shop").parent.stat().st_mode) == 0o700
