"""What is wrong with annotations of boxes: everything is counted and listed, nothing is silently dropped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

# kind -> what became of it
OUTCOMES = {
    "outside the picture": "clipped to the picture",
    "no area": "left out",
    "no box": "left out",
    "unknown class": "ignored: it may be found or not",
    "picture without boxes": "kept: it shows what is none",
    "duplicate image id": "the first is kept",
    "duplicate file": "both are kept",
    "unknown image": "left out",
    "missing file": "the picture is left out with its boxes",
    "unreadable file": "the picture is left out with its boxes",
    "other size": "boxes are scaled by the size that the annotation names",
}
Kind = Literal[
    "outside the picture",
    "no area",
    "no box",
    "unknown class",
    "picture without boxes",
    "duplicate image id",
    "duplicate file",
    "unknown image",
    "missing file",
    "unreadable file",
    "other size",
]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Kind
    where: str  # the picture's file, or the annotation's id
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({OUTCOMES[self.kind]})"


@dataclass
class BoxFindings:
    """All of a data set."""

    found: list[Finding] = field(default_factory=list)

    def add(self, kind: Kind, where: str, what: str) -> None:
        self.found.append(Finding(kind, where, what))

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> how often, in the order of OUTCOMES."""
        counted: Counter[str] = Counter(finding.kind for finding in self.found)
        return {kind: counted[kind] for kind in OUTCOMES if kind in counted}

    def summary(self) -> str:
        """One line; empty where all is well."""
        return "; ".join(f"{count} x {kind} ({OUTCOMES[kind]})" for kind, count in self.counts.items())
