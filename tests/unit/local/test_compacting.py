from __future__ import annotations

import pytest

from local.compacting import Compacting
from local.home import RunState
from magpie.errors import FailedPrecondition


def test_nothing_is_compacted_under_the_redis_engine(tmp_path):
    # No port answers: it must refuse before it asks for a lease.
    state = RunState(ports={"redis": 1, "aws": 1}, snapshots=str(tmp_path), engine="redis")
    with pytest.raises(FailedPrecondition, match="magpie up --engine compact"):
        Compacting(state).compact("shop", "bundle", print, force=False)
