"""Two contenders measured on the same sets, with a progress bar, and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from training.evaluation.result import SetResult
from training.evaluation.suite import EvaluationSet
from training.evaluation.vector_cache import VectorCache
from training.progress import progress
from training.release.compare import METRICS, Comparison, compare_results
from training.release.contender import Contender, contender, measure, pictures


def compare_on(
    names: tuple[str, str],
    entries: Sequence[EvaluationSet],
    data: Path,
    notes: Console,
    metrics: Sequence[str] = METRICS,
) -> Comparison:
    """A and B by name, each a bundle's folder or `imagenet`; progress goes to `notes`.

    Raises FailedPrecondition for a bundle, InvalidArgument for data or a space that it cannot be measured on.
    """
    one, other = contender(names[0]), contender(names[1])
    same = (one.weights, one.spec) == (other.weights, other.spec) and not (one.hubness or other.hubness)
    total = pictures(entries, data)
    with progress(notes) as bar:
        of_one = _measured(bar, one, entries, data, total)
        # Bundles may differ in other parts alone: the detector, the codes, the customers' configs.
        of_other = of_one if same else _measured(bar, other, entries, data, total)
    return compare_results(of_one, of_other, metrics)


def _measured(
    bar: Progress, model: Contender, entries: Sequence[EvaluationSet], data: Path, total: int
) -> list[SetResult]:
    task = bar.add_task(f"embedding: {model.title}", total=total)
    tick: Callable[[int], None] = lambda pictures: bar.advance(task, pictures)  # noqa: E731
    return measure(model, entries, data, VectorCache(model.run, model.spec, tick, hubness=model.hubness))
