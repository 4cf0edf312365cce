"""What is in some data sets: classes, taxonomy, sources, near-duplicates, bad pictures.

`report` only counts; nothing here refuses anything (see `before_training`).
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.datasets import near_duplicates, quality_check
from training.datasets.example import Example
from training.datasets.measured_picture import Measured

PRODUCT = "product"  # reported like a label column
FUNCTIONAL = 0.8  # of a column's values have one value of a coarser column: the others are exceptions to name
LARGE_SHARE = 0.5  # of a class's pictures from one source


@dataclass(frozen=True)
class ClassCount:
    """A class, or a source, with the number of its pictures."""

    name: str
    pictures: int


@dataclass(frozen=True)
class Column:
    """A label column, or the products. Counts are pictures of one class."""

    name: str
    pictures: int  # that have a value
    coverage: float  # the same as a share of all pictures, [0, 1]
    classes: tuple[ClassCount, ...]  # smallest first

    @property
    def fewest(self) -> int:
        """Pictures of the smallest class."""
        return self.classes[0].pictures

    @property
    def median(self) -> float:
        """Pictures of the middle class."""
        return statistics.median(entry.pictures for entry in self.classes)

    @property
    def most(self) -> int:
        """Pictures of the largest class."""
        return self.classes[-1].pictures

    @property
    def single(self) -> tuple[str, ...]:
        """Classes of one picture."""
        return tuple(entry.name for entry in self.classes if entry.pictures == 1)

    @property
    def all_unique(self) -> bool:
        """Every picture has a value of its own: a title or a number, and no label."""
        return 1 < self.pictures == len(self.classes)


@dataclass(frozen=True)
class Contradiction:
    """A value that stands under several values of a coarser column, as a category under two departments."""

    column: str
    value: str
    coarser: str
    under: tuple[ClassCount, ...]  # most pictures first


@dataclass(frozen=True)
class Concentration:
    """How much of the pictures of a class one source took."""

    column: str
    value: str
    source: str
    share: float  # [0, 1]
    pictures: int  # of the class


@dataclass(frozen=True)
class Sources:
    """Who took the pictures."""

    pictures: int  # whose source is known
    largest: tuple[ClassCount, ...]  # all of them, most pictures first
    concentrated: tuple[Concentration, ...]  # classes of which one source took LARGE_SHARE or more

    @property
    def largest_share(self) -> float:
        """Of the pictures whose source is known, [0, 1]."""
        return self.largest[0].pictures / self.pictures if self.largest else 0.0


@dataclass(frozen=True)
class NearDuplicates:
    """One photograph that is there several times."""

    pictures: tuple[Path, ...]
    places: tuple[str, ...]  # of each picture: `data set/split`
    same_bytes: bool  # of all of them
    contradicting: bool  # they have different products or labels

    @property
    def across(self) -> bool:
        """Do they lie in several splits or data sets?"""
        return len(set(self.places)) > 1


@dataclass(frozen=True)
class BadPicture:
    """A picture with what is wrong with it."""

    picture: Path
    faults: tuple[str, ...]


@dataclass(frozen=True)
class DataSetReport:
    """One data set."""

    name: str
    pictures: int
    catalogue: int  # of them, the shop's own
    photos: int
    splits: tuple[ClassCount, ...]
    columns: tuple[Column, ...]  # the products first, then the labels
    products_without_photo: tuple[str, ...]  # where other products have one
    products_without_catalogue: tuple[str, ...]  # likewise
    contradictions: tuple[Contradiction, ...]
    sources: Sources

    def column(self, name: str) -> Column | None:
        """None if no picture has a value."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class DataReport:
    """Some data sets together."""

    datasets: tuple[DataSetReport, ...]
    unreadable: tuple[BadPicture, ...]  # counted in the data sets all the same
    near_duplicates: tuple[NearDuplicates, ...]
    bad_pictures: tuple[BadPicture, ...]
    warnings: tuple[str, ...] = ()  # what training would say and go on
    refusals: tuple[str, ...] = ()  # what training would refuse, each with the way out

    @property
    def pictures(self) -> int:
        """In all data sets."""
        return sum(dataset.pictures for dataset in self.datasets)

    @property
    def across(self) -> tuple[NearDuplicates, ...]:
        """Near-duplicates that lie in several splits or data sets."""
        return tuple(group for group in self.near_duplicates if group.across)

    def readable(self, examples: Sequence[Example]) -> list[Example]:
        """Those that can be read."""
        unreadable = {bad.picture for bad in self.unreadable}
        return [example for example in examples if example.path not in unreadable]


def report(
    examples: Sequence[Example], measured: Mapping[Path, Measured], unreadable: Mapping[Path, str]
) -> DataReport:
    """Count what `measured_picture.measure_all` has read."""
    datasets = defaultdict[str, list[Example]](list)
    for example in examples:
        datasets[example.dataset].append(example)
    bad = []
    for path, example in {example.path: example for example in examples}.items():
        if path in measured:
            found = quality_check.faults(measured[path], catalogue=example.catalogue)
            bad += [BadPicture(path, tuple(found))] if found else []
    return DataReport(
        datasets=tuple(_of_one(name, members) for name, members in datasets.items()),
        unreadable=tuple(BadPicture(path, (reason,)) for path, reason in sorted(unreadable.items())),
        near_duplicates=tuple(_near_duplicates(examples, measured)),
        bad_pictures=tuple(sorted(bad, key=lambda entry: entry.picture)),
    )


def place(example: Example) -> str:
    """Where an example lies: data set, and split if it has one."""
    return f"{example.dataset}/{example.split}" if example.split else example.dataset


def _of_one(name: str, examples: Sequence[Example]) -> DataSetReport:
    splits = Counter(example.split for example in examples)
    labels = dict.fromkeys(column for example in examples for column in example.labels)
    columns = [_column(name, examples) for name in (PRODUCT, *labels)]
    present = [column for column in columns if column.classes]
    kinds = {kind: {e.product for e in examples if e.catalogue == kind} - {None} for kind in (True, False)}
    mixed = bool(kinds[True] and kinds[False])
    return DataSetReport(
        name=name,
        pictures=len(examples),
        catalogue=sum(example.catalogue for example in examples),
        photos=sum(not example.catalogue for example in examples),
        splits=tuple(ClassCount(split, count) for split, count in splits.items() if split),
        columns=tuple(present),
        products_without_photo=_sorted(kinds[True] - kinds[False]) if mixed else (),
        products_without_catalogue=_sorted(kinds[False] - kinds[True]) if mixed else (),
        contradictions=tuple(_contradictions(examples, present)),
        sources=_sources(examples, [column.name for column in present if column.name != PRODUCT]),
    )


def _sorted(names: set[str | None]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if name is not None))


def value_of(example: Example, column: str) -> str | None:
    """Of a label column, or the product."""
    return example.product if column == PRODUCT else example.labels.get(column)


def _column(name: str, examples: Sequence[Example]) -> Column:
    counts = Counter(value for e in examples if (value := value_of(e, name)) is not None)
    classes = sorted((ClassCount(*item) for item in counts.items()), key=lambda c: (c.pictures, c.name))
    pictures = sum(counts.values())
    return Column(name, pictures, pictures / len(examples), tuple(classes))


def _contradictions(examples: Sequence[Example], columns: Sequence[Column]) -> list[Contradiction]:
    """Exceptions where one column nearly decides another: both are levels of a taxonomy."""
    found = []
    for fine in columns:
        for coarse in columns:
            if not len(fine.classes) > len(coarse.classes) > 1:
                continue
            under = defaultdict[str, Counter[str]](Counter)
            for example in examples:
                value, above = value_of(example, fine.name), value_of(example, coarse.name)
                if value is not None and above is not None:
                    under[value][above] += 1
            several = {value: counts for value, counts in under.items() if len(counts) > 1}
            if several and len(under) - len(several) >= FUNCTIONAL * len(under):
                found += [
                    Contradiction(
                        fine.name, value, coarse.name, tuple(ClassCount(*c) for c in counts.most_common())
                    )
                    for value, counts in sorted(several.items())
                ]
    return found


def _sources(examples: Sequence[Example], columns: Sequence[str]) -> Sources:
    known = [example for example in examples if example.source is not None]
    total = Counter(example.source or "" for example in known)
    concentrated = []
    for column in columns if len(total) > 1 else ():
        classes = defaultdict[str, Counter[str]](Counter)
        for example in known:
            if (value := example.labels.get(column)) is not None:
                classes[value][example.source or ""] += 1
        for value, counts in sorted(classes.items()):
            (source, most), pictures = counts.most_common(1)[0], counts.total()
            if pictures > 1 and most >= LARGE_SHARE * pictures:
                concentrated.append(Concentration(column, value, source, most / pictures, pictures))
    return Sources(len(known), tuple(ClassCount(*item) for item in total.most_common()), tuple(concentrated))


def _near_duplicates(examples: Sequence[Example], measured: Mapping[Path, Measured]) -> list[NearDuplicates]:
    # A picture may be named by two data sets, or twice by one; then it is its own duplicate.
    known = sorted((e for e in examples if e.path in measured), key=lambda e: (str(e.path), place(e)))
    result = []
    for rows in near_duplicates.groups([measured[example.path] for example in known]):
        members = [known[row] for row in rows]
        result.append(
            NearDuplicates(
                pictures=tuple(example.path for example in members),
                places=tuple(place(example) for example in members),
                same_bytes=len({measured[example.path].sha256 for example in members}) == 1,
                contradicting=_contradicting(members),
            )
        )
    return result


def _contradicting(members: Sequence[Example]) -> bool:
    """Do two of them say different things, in one data set? What is not known contradicts nothing."""
    said = defaultdict[tuple[str, str], set[str]](set)
    for example in members:
        for column, value in {**example.labels, PRODUCT: example.product}.items():
            if value is not None:
                said[example.dataset, column].add(value)
    return any(len(values) > 1 for values in said.values())
