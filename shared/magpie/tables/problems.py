"""What is wrong with a file that a user gave, all of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from magpie.errors import InvalidArgument


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to mend. `line` counts from 1; 0 means the file as a whole."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


class BadFile(InvalidArgument):
    """A file with problems; nothing of it was used."""

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}, nothing of it was used"
        super().__init__(name, "\n".join([count, *(f"  {problem}" for problem in self.problems)]))
