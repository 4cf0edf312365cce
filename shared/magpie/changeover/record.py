"""What a change-over is, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["running", "complete", "paused", "switched"]


@dataclass(frozen=True)
class ChangeOver:
    """One customer's change-over under way. Bundles are ids, times are seconds since the epoch."""

    customer: str
    from_bundle: str
    to_bundle: str
    serving: str  # the one of the two that answers searches
    paused: bool
    listed: bool  # whether every image that was there at the start is counted
    backlog: int  # images on their way to the other index at once
    started: float
    changed_at: float | None  # when another bundle began to serve last; None: it has not happened
    dropping: str  # the one of the two that is being removed; empty: none

    @property
    def switched(self) -> bool:
        """Whether the new bundle serves."""
        return self.serving == self.to_bundle

    @property
    def other(self) -> str:
        """The one of the two that does not serve."""
        return self.from_bundle if self.switched else self.to_bundle


@dataclass(frozen=True)
class FailedImage:
    """A stored picture that the new bundle's models could not take."""

    product_id: str
    sha256: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """How far the index of the bundle that does not serve is. Counts are of images."""

    change_over: ChangeOver
    done: int
    waiting: int  # not sent yet
    on_their_way: int
    failed: int

    @property
    def total(self) -> int:
        """All that the index will have or lack."""
        return self.done + self.waiting + self.on_their_way + self.failed

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be embedded; what failed stays out."""
        return self.change_over.listed and self.waiting + self.on_their_way == 0

    @property
    def state(self) -> State:
        """In one word."""
        if self.change_over.switched:
            return "switched"
        if self.complete:
            return "complete"
        return "paused" if self.change_over.paused else "running"


@dataclass(frozen=True)
class Due:
    """An image that one of the indexes lacks."""

    product_id: str
    sha256: str
    round: str  # the same until the image makes a step; names the event
