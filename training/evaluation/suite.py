"""What a bundle is judged on: a suite of evaluation sets, as TOML (see `suites/`).

A set has queries and a gallery, or leaves out one picture (or one source's pictures) at a time. `relevant`
says what counts as right: the `product`, or a label column.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from magpie.errors import InvalidArgument
from training import recipe_file
from training.datasets.catalogue_of_cards import DataEntry
from training.detection.recipe import BoxData


@dataclass(frozen=True)
class EvaluationSet:
    """One set. With a gallery, queries search in it; without, in the other queries."""

    name: str
    queries: DataEntry
    gallery: DataEntry | None = None
    relevant: str = "product"  # `product` or a label column
    space: str = "identity"  # the space that the set judges first
    leave_out: str = "picture"  # what a query may not find: its own `picture`, or all of its `source`
    protected: bool = True  # a release must not be significantly worse on it
    unseen: tuple[str, ...] = ()  # products that the model's training left out, for the split of the figures
    conditions: bool = False  # also under rotation, blur, darkness, JPEG, occlusion
    related: str = ""  # label column: another product of the same value has grade 1 in nDCG, a right one 3
    source_probe: bool = False  # also: can one tell from the vectors who took the picture?
    make: str = ""  # how to come by the data, said where it is not there

    def __post_init__(self) -> None:
        if self.leave_out not in ("picture", "source"):
            raise ValueError(f"`leave_out` must be `picture` or `source`, got {self.leave_out!r}")


@dataclass(frozen=True)
class BoxSet:
    """Photos with boxes: a release's detector must find there as well as before what it knew before."""

    name: str
    boxes: BoxData


@dataclass(frozen=True)
class Suite:
    """All sets; `set` and `boxes` in the file, a table each."""

    set: tuple[EvaluationSet, ...] = field(default_factory=tuple)
    boxes: tuple[BoxSet, ...] = field(default_factory=tuple)

    @classmethod
    def load(cls, path: Path) -> Suite:
        """Raises InvalidArgument naming the key that is wrong."""
        suite = recipe_file.read(cls, path)
        names = [*(entry.name for entry in suite.set), *(entry.name for entry in suite.boxes)]
        if not suite.set or len(set(names)) != len(names):
            raise InvalidArgument(str(path), "needs sets, each with a name of its own")
        return suite
