"""From where on an index is compacted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from magpie.errors import FailedPrecondition
from magpie.index.compaction_policy import Backlog, Thresholds
from magpie.settings import Settings


@pytest.mark.parametrize(
    ("changes", "seconds", "reached"),
    [
        (0, 0.0, False),
        (0, 1000.0, False),  # nothing is never due, whatever its age
        (1, 59.9, False),
        (1, 60.0, True),
        (9, 0.0, False),
        (10, 0.0, True),
    ],
)
def test_many_changes_or_an_old_one(changes: int, seconds: float, reached: bool) -> None:
    backlog = Backlog("shop", "default@1", 3, changes, seconds)
    assert Thresholds(10, 60).reached(backlog) == reached
    assert Thresholds(10, 60).reached(replace(backlog, told=False))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAGPIE_COMPACT_CHANGES", "0"),
        ("MAGPIE_COMPACT_CHANGES", "50001"),  # the stream could have lost some by then
        ("MAGPIE_COMPACT_SECONDS", "soon"),
    ],
)
def test_thresholds_that_are_no_good(name: str, value: str) -> None:
    with pytest.raises(FailedPrecondition, match=f"{name} must be a whole number"):
        Settings.from_environment({name: value})
