"""The moments at which a change-over can die. Tests do, at each; whoever comes next completes it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Step(Enum):
    """What has just been done and would not be done again. In the order in which they come."""

    ANNOUNCED = "the background knows of the customer, there is no record yet"
    STARTED = "the record is written, no image is listed"
    PAGE_LISTED = "some images are listed as due"
    ALL_LISTED = "all images are listed"
    SENT = "events are in the queue, their images are not marked"
    MARKED = "images are marked as sent"
    GATE_PASSED = "the gate is passed, the old bundle serves"
    SWITCHED = "the new bundle serves"
    DROP_BEGUN = "the old bundle's index takes nothing more"
    SNAPSHOTS_DROPPED = "its snapshots are gone, its objects are there"
    DROPPED = "its objects and the record are gone"


Checkpoint = Callable[[Step], None]


def go_on(_step: Step) -> None:
    """What happens at a step in production: nothing."""
