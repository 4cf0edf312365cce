"""Data sets by name: a recipe says `data = "grocery-store"`, a card or a path says where it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from magpie.errors import InvalidArgument
from training import recipe_file
from training.datasets.example import Example
from training.datasets.source import DataSource, read_examples

CARDS = Path(__file__).with_name("cards")


@dataclass(frozen=True)
class DataEntry:
    """Some pictures of a data set, as a recipe or a suite names them."""

    data: str  # the name of a card, or a path to a card (.toml), a CSV file or a folder
    splits: tuple[str, ...] = ()  # only these; empty: all
    photos: str = ""  # CSV of photos of the products, beside a catalogue
    labels: tuple[str, ...] = ()  # only these label columns; empty: all
    kind: str = ""  # only `catalogue` or only `photo` pictures; empty: both
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # `product` or label -> not these

    def __post_init__(self) -> None:
        if self.kind not in ("", "catalogue", "photo"):
            raise ValueError(f"`kind` must be `catalogue` or `photo`, got {self.kind!r}")

    @property
    def title(self) -> str:
        """The data set's name, as its examples say it."""
        return Path(self.data).stem


def card_of(name: str, root: Path) -> DataSource:
    """The description of a data set. Raises InvalidArgument with the names that there are."""
    card = CARDS / f"{name}.toml"
    if card.is_file():
        return recipe_file.read(DataSource, card)
    path = root / name
    if path.suffix == ".toml" and path.is_file():
        source = recipe_file.read(DataSource, path)
        return replace(source, path=str(path.parent / source.path))
    if path.exists():
        return DataSource(path=name)
    known = ", ".join(sorted(path.stem for path in CARDS.glob("*.toml")))
    raise InvalidArgument("data", f"there is no {path}, nor a card of that name; there is {known}")


def examples_of(entry: DataEntry, root: Path) -> list[Example]:
    """The pictures that an entry names. Raises InvalidArgument, or BadFile with everything that is wrong."""
    source = card_of(entry.data, root)
    if entry.photos or entry.labels:
        source = replace(source, photos=entry.photos or source.photos, labels=entry.labels or source.labels)
    everything = read_examples(source, root)
    _refuse_unknown_names(entry, everything)
    examples = [example for example in everything if _wanted(example, entry)]
    if not examples:
        raise InvalidArgument(entry.data, f"no picture is left by splits {entry.splits}, kind {entry.kind!r}")
    return examples


def _refuse_unknown_names(entry: DataEntry, examples: Sequence[Example]) -> None:
    """A misspelt split or class would quietly keep too little, or too much."""
    splits = sorted({example.split for example in examples} - {""})
    for split in entry.splits:
        if split not in splits:
            there = recipe_file.nearest(split, splits) if splits else "; its pictures have no `split`"
            raise InvalidArgument(entry.data, f"no picture is of the split `{split}`{there}")
    for column, values in entry.without.items():
        known = {e.product if column == "product" else e.labels.get(column) for e in examples} - {None}
        if not known:
            columns = ["product", *dict.fromkeys(label for e in examples for label in e.labels)]
            there = recipe_file.nearest(column, columns)
            raise InvalidArgument(entry.data, f"`without`: no picture has a `{column}`{there}")
        for value in values:
            if value not in known:
                there = recipe_file.nearest(value, sorted(str(name) for name in known))
                raise InvalidArgument(entry.data, f"`without`: no picture has the {column} `{value}`{there}")


def _wanted(example: Example, entry: DataEntry) -> bool:
    if entry.splits and example.split not in entry.splits:
        return False
    if entry.kind and example.catalogue != (entry.kind == "catalogue"):
        return False
    known = {**example.labels, "product": example.product}
    return not any(known.get(column) in values for column, values in entry.without.items())
