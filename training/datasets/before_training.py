"""What must be right before a training starts, and what is worth a warning.

Everything that is wrong is said at once, each with the file or class and the way out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from training.datasets.example import Example
from training.datasets.report import PRODUCT, DataReport, NearDuplicates, report, value_of
from training.recipe_file import nearest

NAMED = 20  # files, pairs or classes in one message; then a count
LARGE_SOURCE = 0.5  # share of a data set's pictures from which one source is worth a warning


def judge(
    found: DataReport,
    examples: Sequence[Example],
    development: Sequence[Example] = (),
    held_out: Sequence[Example] = (),
    *,
    columns: Collection[str] = (),
    identity: bool = True,
    catalogue: bool = False,
    allow_near_duplicates: bool = False,
    skip_unreadable: bool = False,
) -> DataReport:
    """`found`, the report of all these pictures, with warnings, and refusals if training must not start.

    `development` and `held_out` (what figures will be reported on) must not hold a photograph of `examples`,
    unless `allow_near_duplicates`. `columns` are the label columns that training uses; none: all that there
    are. `identity`: products are trained on, so some product needs two pictures. `catalogue`: photos learn
    to find catalogue pictures, so some product needs both. Unreadable pictures are refused, or left out with
    `skip_unreadable`.
    """
    train = found.readable(examples)
    trained = report(train, {}, {})
    refusals = [] if skip_unreadable else list(_unreadable(found))
    refusals += _empty(examples, train, columns)
    refusals += _all_unique(trained, columns)
    refusals += _no_pair(trained) if identity else ()
    refusals += _nothing_to_find(train) if catalogue else ()
    if not allow_near_duplicates:
        paths = {example.path for example in train}
        for name, others in (("development", development), ("held-out", held_out)):
            refusals += _leaks(found.near_duplicates, paths, {e.path for e in others}, name)
    warnings = [*_skipped(found)] if skip_unreadable else []
    warnings += [*_small_classes(trained, columns), *_unknown_to_training(train, development, columns)]
    warnings += [*_doubtful_labels(found, trained), *_one_sided_sources(trained)]
    if found.bad_pictures:
        warnings.append(
            f"{_many(len(found.bad_pictures), 'picture')} blurred, dark, overexposed or small, such as "
            f"{found.bad_pictures[0].picture}: `magpie report-data` lists them"
        )
    return replace(found, warnings=tuple(warnings), refusals=tuple(refusals))


def _unreadable(found: DataReport) -> Iterator[str]:
    if found.unreadable:
        files = (f"{bad.picture}: {bad.faults[0]}" for bad in found.unreadable)
        yield (
            f"{_many(len(found.unreadable), 'picture')} cannot be read: remove their rows, or leave them out "
            f"with `skip_unreadable = true`:{_lines(files)}"
        )


def _nothing_to_find(train: Sequence[Example]) -> Iterator[str]:
    """Products without a photo, or without a catalogue picture, teach the contrast nothing."""
    shown, photographed = (
        {e.product_name for e in train if e.product_name is not None and e.catalogue == catalogue}
        for catalogue in (True, False)
    )
    if not shown & photographed:
        yield (
            "no product has both a photo and a catalogue picture, which `losses.contrast` needs: name them "
            "in column `kind`, or set `losses.contrast = 0` and `losses.softmax = 1`"
        )


def _skipped(found: DataReport) -> Iterator[str]:
    if found.unreadable:
        files = (f"{bad.picture}: {bad.faults[0]}" for bad in found.unreadable)
        yield f"{_many(len(found.unreadable), 'picture')} left out that cannot be read:{_lines(files)}"


def _empty(given: Sequence[Example], left: Sequence[Example], columns: Collection[str]) -> Iterator[str]:
    """Columns without a value, and classes of which no picture can be read."""
    if not left:
        yield "no picture is left to train on: see what `splits`, `kind`, `where` and `without` keep"
        return
    known = dict.fromkeys(column for example in given for column in example.labels)
    for column in columns or known:
        if column not in known:
            yield f"no picture has the label `{column}` that the recipe names{nearest(column, known)}"
    for column in (PRODUCT, *(columns or known)):
        values = _values(given, column) - _values(left, column)
        if values:
            yield (
                f"no picture can be read of `{column}` {_names(sorted(values))}: mend the pictures, or "
                f'leave it out with `without = {{ {column} = ["{min(values)}"] }}`'
            )


def _all_unique(trained: DataReport, columns: Collection[str]) -> Iterator[str]:
    for dataset in trained.datasets:
        labels = [column for column in dataset.columns if column.name != PRODUCT]
        for column in labels:
            if column.all_unique and (not columns or column.name in columns):
                others = ", ".join(f'"{other.name}"' for other in labels if not other.all_unique)
                yield (
                    f"label column `{column.name}` of {dataset.name} has another value for each of its "
                    f"{column.pictures} pictures, such as {column.classes[0].name!r}: it is no label; leave "
                    f"it out with `labels = [{others}]` of the data set"
                )


def _no_pair(trained: DataReport) -> Iterator[str]:
    products = [column for dataset in trained.datasets if (column := dataset.column(PRODUCT))]
    if products and all(column.most == 1 for column in products):
        count = sum(len(column.classes) for column in products)
        yield (
            f"no product has two pictures ({_many(count, 'product')} of one each, such as "
            f"`{products[0].classes[0].name}`), so there is no pair to learn an item from: add photos of "
            "them, or train without the identity losses"
        )


def _leaks(
    groups: Iterable[NearDuplicates], train: Collection[Path], others: Collection[Path], name: str
) -> Iterator[str]:
    """Photographs that are in training and among `others`."""
    pairs = []
    for group in groups:
        learnt = [path for path in group.pictures if path in train]
        pairs += [f"{path} = {learnt[0]}" for path in group.pictures if learnt and path in others]
    if pairs:
        yield (
            f"{_many(len(pairs), f'{name} picture')} with a copy among those to train on: remove one of each "
            f"pair, or allow it with `development.allow_near_duplicates = true`:{_lines(pairs)}"
        )


def _small_classes(trained: DataReport, columns: Collection[str]) -> Iterator[str]:
    for dataset in trained.datasets:
        for column in dataset.columns:
            if column.name == PRODUCT and column.single and column.most > 1:
                yield (
                    f"{_many(len(column.single), 'product')} of {dataset.name} with one picture only, left "
                    f"out of the triplets: add a photo of {_names(column.single)}"
                )
            used = column.name != PRODUCT and (not columns or column.name in columns)
            if used and column.single and not column.all_unique:
                yield (
                    f"`{column.name}` of {dataset.name}: one picture only of {_names(column.single)}; add "
                    "pictures, or join it with another class"
                )
            if columns and column.name not in (PRODUCT, *columns) and column.all_unique:
                yield f"label column `{column.name}` of {dataset.name} is all unique, and not used"


def _unknown_to_training(
    train: Sequence[Example], development: Sequence[Example], columns: Collection[str]
) -> Iterator[str]:
    known = dict.fromkeys(column for example in development for column in example.labels)
    for column in columns or known:
        values = _values(development, column) - _values(train, column)
        if values:
            yield f"`{column}` {_names(sorted(values))} is in development and in no training picture"


def _doubtful_labels(found: DataReport, trained: DataReport) -> Iterator[str]:
    for dataset in trained.datasets:
        for wrong in dataset.contradictions:
            under = ", ".join(f"{entry.name} ({entry.pictures})" for entry in wrong.under)
            yield (
                f"`{wrong.column}` {wrong.value} of {dataset.name} stands under several of "
                f"`{wrong.coarser}`: {under}; correct the rows of the smaller"
            )
    contradicting = [group for group in found.near_duplicates if group.contradicting]
    if contradicting:
        pairs = (" = ".join(str(path) for path in group.pictures) for group in contradicting)
        yield (
            f"of {_many(len(contradicting), 'photograph')} there are copies with different labels: keep the "
            f"right one:{_lines(pairs)}"
        )


def _one_sided_sources(trained: DataReport) -> Iterator[str]:
    for dataset in trained.datasets:
        sources = dataset.sources
        if len(sources.largest) > 1 and sources.largest_share >= LARGE_SOURCE:
            yield (
                f"source {sources.largest[0].name} took {sources.largest_share:.0%} of {dataset.name}: "
                "the model may learn its camera and its table; add pictures of others"
            )
        if sources.concentrated:
            named = [
                f"{entry.value} ({entry.share:.0%} from {entry.source})" for entry in sources.concentrated
            ]
            yield f"one source took half or more of these classes of {dataset.name}: {_names(named)}"


def _values(examples: Sequence[Example], column: str) -> set[str]:
    return {value for example in examples if (value := value_of(example, column)) is not None}


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _lines(lines: Iterable[str]) -> str:
    """Each on its own line, indented below the message that names them."""
    every = list(lines)
    more = [f"and {len(every) - NAMED} more"] if len(every) > NAMED else []
    return "".join(f"\n    {line}" for line in [*every[:NAMED], *more])
