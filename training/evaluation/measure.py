"""A model measured on evaluation sets: one SetResult a set, a number a query."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from magpie.errors import InvalidArgument, NotFound
from magpie.vision.model_card import InputSpec
from training.datasets.catalogue_of_cards import card_of, examples_of
from training.datasets.example import Example
from training.embedding.retrieval import Run
from training.evaluation.conditions import Condition
from training.evaluation.ranking import Query, Ranking, queries_of, rank
from training.evaluation.result import SetResult
from training.evaluation.suite import EvaluationSet, Suite
from training.evaluation.vector_cache import VectorCache


def measure_set(
    run: Run,
    spec: InputSpec,
    entry: EvaluationSet,
    root: Path,
    *,
    space: str | None = None,
    condition: Condition | None = None,
    cache: VectorCache | None = None,
) -> SetResult:
    """Measure in `space` (None: the set's own), the query pictures under `condition`.

    A `cache` of the same model saves embedding a picture again. Raises InvalidArgument if the model has no
    such space or the set names data that is wrong.
    """
    cache = cache or VectorCache(run, spec)
    ranking = rank_set(entry, read_set(entry, root), cache, space=space, condition=condition)
    return result_of(entry, ranking, root)


def measure_suite(
    run: Run,
    spec: InputSpec,
    suite: Suite,
    root: Path,
    *,
    cache: VectorCache | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[SetResult]:
    """Every set whose data is on this machine, each in its own space; `tell` hears of those left out.

    Raises NotFound if there is none.
    """
    cache = cache or VectorCache(run, spec)
    return [measure_set(run, spec, entry, root, cache=cache) for entry in present(suite, root, tell)]


def present(suite: Suite, root: Path, tell: Callable[[str], None]) -> list[EvaluationSet]:
    """The sets whose data is on this machine. Raises NotFound if there is none."""
    found = []
    for entry in suite.set:
        absent = [path for path in _paths(entry, root) if not path.exists()]
        if absent:
            hint = f"; {entry.make}" if entry.make else ""
            tell(f"set `{entry.name}` is left out: there is no {absent[0]}{hint}")
        else:
            found.append(entry)
    if not found:
        raise NotFound(f"{root} has none of the suite's sets: {', '.join(e.name for e in suite.set)}")
    return found


def _paths(entry: EvaluationSet, root: Path) -> list[Path]:
    paths = []
    for data in filter(None, (entry.queries, entry.gallery)):
        try:
            paths.append(root / card_of(data.data, root).path)
        except InvalidArgument:  # neither a card nor a file
            paths.append(root / data.data)
        if data.photos:
            paths.append(root / data.photos)
    return paths


def read_set(entry: EvaluationSet, root: Path) -> tuple[list[Query], list[Example]]:
    """Queries and gallery; without a gallery the queries' pictures search in each other."""
    examples = examples_of(entry.queries, root)
    queries = queries_of(examples, entry.relevant)
    if not queries:
        raise InvalidArgument(entry.name, f"no query has a {entry.relevant}")
    gallery = examples_of(entry.gallery, root) if entry.gallery else [query.example for query in queries]
    return queries, gallery


def rank_set(
    entry: EvaluationSet,
    content: tuple[list[Query], list[Example]],
    cache: VectorCache,
    *,
    space: str | None = None,
    condition: Condition | None = None,
) -> Ranking:
    """Embed what is not embedded yet, and rank. Raises InvalidArgument if the model has no such space."""
    queries, gallery = content
    of_queries = cache.vectors([query.example for query in queries], condition)
    of_gallery = cache.vectors(gallery)
    chosen = space_in(of_queries, space or entry.space)
    asked, found = of_queries[chosen], of_gallery[chosen]
    return rank(entry, queries, asked, gallery, found, cache.penalty(chosen, found))


def space_in(spaces: Collection[str], wanted: str) -> str:
    """`wanted`, or the only one of a model that has one space alone. Raises InvalidArgument."""
    if wanted in spaces:
        return wanted
    if len(spaces) == 1:
        return next(iter(spaces))
    raise InvalidArgument("space", f"the model has no `{wanted}`; there is {', '.join(sorted(spaces))}")


def result_of(entry: EvaluationSet, ranking: Ranking, root: Path) -> SetResult:
    """Numbers a query, with what each query belongs to."""
    examples = [query.example for query in ranking.queries]
    groups: dict[str, tuple[str, ...]] = {"category": tuple(_category(e, entry) for e in examples)}
    if entry.unseen:
        groups["seen"] = tuple("unseen" if e.product in entry.unseen else "seen" for e in examples)
    return SetResult(
        name=entry.name,
        queries=tuple(picture_name(example, root) for example in examples),
        metrics=ranking.metrics,
        groups=groups,
    )


def picture_name(example: Example, root: Path) -> str:
    """The file as reports name it: relative to the folder of the data sets where it lies in it."""
    return (example.path.relative_to(root) if example.path.is_relative_to(root) else example.path).as_posix()


def _category(example: Example, entry: EvaluationSet) -> str:
    column = "category" if "category" in example.labels or entry.relevant == "product" else entry.relevant
    return example.labels.get(column, "")
