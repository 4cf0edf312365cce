"""All that a report tells of a model, measured: every set, condition, space, map and probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from magpie.vision.model_card import ModelCard
from training.datasets.example import Example
from training.evaluation.conditions import CONDITIONS, Condition
from training.evaluation.measure import (
    picture_name,
    rank_set,
    read_set,
    result_of,
    space_in,
)
from training.evaluation.ranking import Query, Ranking, value_of
from training.evaluation.result import SetResult
from training.evaluation.source_probe import ProbeResult, probe
from training.evaluation.suite import EvaluationSet
from training.evaluation.vector_cache import VectorCache
from training.evaluation.vector_map import (
    LEAST_PICTURES,
    Movement,
    VectorMap,
    draw_map,
    movements,
    place_in,
)

MAP_PICTURES = 4_000  # at most, drawn evenly; more take minutes and show no more


@dataclass(frozen=True)
class SetEvaluation:
    """One set."""

    entry: EvaluationSet
    ranking: Ranking
    result: SetResult
    peer: SetResult | None
    spaces: Mapping[str, SetResult]  # the same queries in every space
    conditions: Sequence[tuple[Condition, SetResult, SetResult | None]]  # ours, the peer's
    probes: Mapping[str, ProbeResult]  # by space; `imagenet` for the backbone as it comes


@dataclass(frozen=True)
class SpaceMap:
    """The map of one space, and the old one that it was placed in."""

    drawn: VectorMap
    classes: Mapping[str, str]  # picture -> category, department or data set
    old: VectorMap | None = None
    moved: Sequence[Movement] = ()


@dataclass(frozen=True)
class Evaluation:
    """Everything."""

    sets: Sequence[SetEvaluation]
    maps: Mapping[str, SpaceMap] = field(default_factory=dict)
    map_notes: Sequence[str] = ()


Content = tuple[list[Query], list[Example]]
MAP_CATEGORIES = 10  # of one data set: more colours nobody tells apart
LEFT_OUT = "products left out of training"  # what a card's metrics call them


def with_unseen(entries: Sequence[EvaluationSet], card: ModelCard) -> list[EvaluationSet]:
    """The sets with the products that the model never saw, as its card tells, where a set names none."""
    unseen = tuple(card.metrics.get(LEFT_OUT, ()))
    return [entry if entry.unseen else replace(entry, unseen=unseen) for entry in entries]


def read_all(entries: Sequence[EvaluationSet], root: Path) -> list[Content]:
    """Queries and gallery of each set. Raises InvalidArgument naming what is wrong."""
    return [read_set(entry, root) for entry in entries]


def pictures_to_embed(entries: Sequence[EvaluationSet], contents: Sequence[Content], *, quick: bool) -> int:
    """How many times a picture goes through a model: each file once, and once under each condition."""
    plain, queries = set(), set()
    for entry, (asked, gallery) in zip(entries, contents, strict=True):
        plain |= {query.example.path for query in asked} | {example.path for example in gallery}
        if entry.conditions and not quick:
            queries |= {query.example.path for query in asked}
    return len(plain) + len(queries) * len(CONDITIONS)


def evaluate(
    entries: Sequence[EvaluationSet],
    contents: Sequence[Content],
    root: Path,
    cache: VectorCache,
    *,
    peer: VectorCache | None = None,
    imagenet: VectorCache | None = None,
    old_maps: Mapping[str, VectorMap] | None = None,
    quick: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Measure. `quick` leaves out conditions, maps and probes; `imagenet` is what the probes compare with.

    Raises InvalidArgument if a model lacks a set's space, or `old_maps` shares too few pictures.
    """
    sets = [
        _evaluate_set(entry, content, root, cache, peer, None if quick else imagenet, quick)
        for entry, content in zip(entries, contents, strict=True)
    ]
    if quick:
        return Evaluation(sets)
    maps, notes = _maps(contents, root, cache, old_maps, tell)
    return Evaluation(sets, maps, notes)


def _evaluate_set(
    entry: EvaluationSet,
    content: Content,
    root: Path,
    cache: VectorCache,
    peer: VectorCache | None,
    imagenet: VectorCache | None,
    quick: bool,
) -> SetEvaluation:
    def measured(
        model: VectorCache, condition: Condition | None = None, space: str | None = None
    ) -> SetResult:
        return result_of(entry, rank_set(entry, content, model, space=space, condition=condition), root)

    ranking = rank_set(entry, content, cache)
    examples = [query.example for query in content[0]]
    spaces = sorted(cache.vectors(examples[:1]))
    conditions = CONDITIONS if entry.conditions and not quick else ()
    return SetEvaluation(
        entry=entry,
        ranking=ranking,
        result=result_of(entry, ranking, root),
        peer=measured(peer) if peer else None,
        spaces={space: measured(cache, space=space) for space in spaces},
        conditions=[
            (condition, measured(cache, condition), measured(peer, condition) if peer else None)
            for condition in conditions
        ],
        probes={} if quick or not entry.source_probe else _probes(entry, examples, cache, imagenet),
    )


def _probes(
    entry: EvaluationSet, examples: Sequence[Example], cache: VectorCache, imagenet: VectorCache | None
) -> dict[str, ProbeResult]:
    column = "category" if entry.relevant == "product" else entry.relevant
    categories = [value_of(example, column) or "" for example in examples]
    sources = [example.source for example in examples]
    vectors = dict(cache.vectors(examples))
    if imagenet is not None:
        of_backbone = imagenet.vectors(examples)
        vectors["imagenet"] = of_backbone[space_in(of_backbone, entry.space)]
    found = {name: probe(rows, categories, sources) for name, rows in vectors.items()}
    return {name: result for name, result in found.items() if result is not None}


def _maps(
    contents: Sequence[Content],
    root: Path,
    cache: VectorCache,
    old_maps: Mapping[str, VectorMap] | None,
    tell: Callable[[str], None],
) -> tuple[dict[str, SpaceMap], list[str]]:
    by_name: dict[str, Example] = {}
    for queries, gallery in contents:
        for example in (*(query.example for query in queries), *gallery):
            by_name.setdefault(picture_name(example, root), example)
    names, notes = sorted(by_name), []
    if len(names) < LEAST_PICTURES:
        return {}, [f"{len(names)} pictures are too few for a map, {LEAST_PICTURES} are needed."]
    if len(names) > MAP_PICTURES:
        notes.append(f"{MAP_PICTURES} of {len(names)} pictures are drawn.")
        names = [names[row] for row in np.linspace(0, len(names) - 1, MAP_PICTURES).astype(int)]
    classes = map_classes({name: by_name[name] for name in names})
    maps = {}
    for space, vectors in sorted(cache.vectors([by_name[name] for name in names]).items()):
        tell(f"map of space {space}")
        old = (old_maps or {}).get(space)
        if old is None:
            if old_maps is not None:
                notes.append(f"The earlier report has no map of `{space}`: this one is drawn from scratch.")
            maps[space] = SpaceMap(draw_map(names, vectors), classes)
        else:
            placed = place_in(old, names, vectors)
            maps[space] = SpaceMap(placed, classes, old, movements(old, placed, classes))
    return maps, notes


def map_classes(examples: Mapping[str, Example]) -> dict[str, str]:
    """What each picture is coloured by: its category, in data sets of many its department."""
    categories: dict[str, set[str]] = {}
    for example in examples.values():
        categories.setdefault(example.dataset, set()).add(example.labels.get("category", ""))
    return {
        name: next(
            (
                example.labels[column]
                for column in ("category", "department")
                if column in example.labels
                and (column == "department" or len(categories[example.dataset]) <= MAP_CATEGORIES)
            ),
            example.dataset,
        )
        for name, example in examples.items()
    }
