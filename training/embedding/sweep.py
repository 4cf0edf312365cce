"""A search for better numbers: a recipe with ranges, tried one after the other by optuna.

The recipe file has a table more:

    [sweep]
    trials = 20
    objective = ["grocery-store product"]          # the mean of these development figures is maximised

    [sweep.ranges]
    "optimizer.lr" = { low = 5e-5, high = 1e-3, log = true }
    "batch.products" = { low = 6, high = 14, step = 2 }
    "losses.triplet" = { choices = [0.25, 0.5, 1.0] }

Trials are proposed by a tree-structured Parzen estimator (Bergstra et al. 2011), and one that falls behind
the median of the others at the same epoch is cut short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna

from magpie.errors import InvalidArgument
from training import recipe_file
from training.embedding.recipe import EmbeddingRecipe
from training.embedding.train import train

TABLE = "sweep"
WARM_TRIALS = 4  # run whole before any is cut short


@dataclass(frozen=True)
class Range:
    """Where one number may lie: from `low` to `high`, or one of `choices`."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float = 0.0  # 0: any number between
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if not self.choices and not self.low < self.high:
            raise ValueError(f"needs `choices`, or `low` below `high`, got {self.low:g} to {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("`log` needs `low` above 0")


@dataclass(frozen=True)
class Plan:
    """What a sweep tries."""

    ranges: Mapping[str, Range]  # dotted key of the recipe -> range
    objective: tuple[str, ...] = ()  # development figures; empty: all of them
    trials: int = 20
    seed: int = 1
    prune: bool = True  # cut short what falls behind


@dataclass(frozen=True)
class Outcome:
    """A finished sweep."""

    best: Mapping[str, Any]  # dotted key -> value
    value: float
    trials: tuple[tuple[int, str, float | None, Mapping[str, Any]], ...] = field(default_factory=tuple)


def read_plan(path: Path, changes: Mapping[str, str]) -> tuple[Plan, dict[str, Any]]:
    """(plan, the recipe's own values). Raises InvalidArgument naming the key that is wrong."""
    values = recipe_file.table(path)
    if TABLE not in values:
        raise InvalidArgument(str(path), f"has no table [{TABLE}] with ranges (see `magpie sweep --help`)")
    plan = recipe_file.build(Plan, values.pop(TABLE), str(path), f"{TABLE}.")
    for key, text in changes.items():
        recipe_file.put(values, key, recipe_file.value_of(text))
    known = recipe_file.flat(_settings(values, path))
    for key in plan.ranges:
        if key not in known:
            raise InvalidArgument(
                str(path), f"sweep.ranges: `{key}` is unknown{recipe_file.nearest(key, known)}"
            )
    return plan, values


def sweep(
    plan: Plan,
    values: Mapping[str, Any],
    root: Path,
    out: Path,
    tell: Callable[[str], None],
) -> Outcome:
    """Run what is left of the plan's trials; `out` keeps the study, so that a killed sweep goes on.

    A trial whose loss is no longer finite counts as failed and the sweep goes on.
    """
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{(out / 'sweep.db').resolve()}",
        study_name="sweep",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=plan.seed + _done(out)),
        pruner=optuna.pruners.MedianPruner(WARM_TRIALS) if plan.prune else optuna.pruners.NopPruner(),
    )

    def objective(trial: optuna.Trial) -> float:
        chosen = {key: _suggest(trial, key, choice) for key, choice in plan.ranges.items()}
        changed: dict[str, Any] = recipe_file.merged({}, values)
        for key, value in chosen.items():
            recipe_file.put(changed, key, value)
        recipe = recipe_file.build(EmbeddingRecipe, changed, "sweep")
        if not recipe.development.share:
            raise InvalidArgument("development.share", "is 0: a sweep needs a development split to judge by")
        tell(f"trial {trial.number + 1} of {plan.trials}: {_text(chosen)}")
        epochs = 0

        def watch(figures: Mapping[str, float]) -> None:
            nonlocal epochs
            epochs += 1
            trial.report(_score(plan, figures), epochs)
            if epochs < recipe.schedule.epochs and trial.should_prune():
                raise optuna.TrialPruned

        run_dir = out / f"trial-{trial.number:03d}"
        try:
            return _score(plan, train(root, run_dir, recipe, resume=False, tracking="", watch=watch))
        except InvalidArgument as error:
            if error.field != "loss":  # of the recipe or the data: no trial would go better
                raise
            tell(f"trial {trial.number + 1} failed: {error}")
            raise optuna.TrialPruned from error

    finished = sum(trial.state.is_finished() for trial in study.trials)
    for _ in range(plan.trials - finished):
        study.optimize(objective, n_trials=1)
    best = study.best_trial
    return Outcome(
        best.params,
        float(best.value or 0.0),
        tuple((t.number, t.state.name.lower(), t.value, t.params) for t in study.trials),
    )


def _done(out: Path) -> int:
    """Trials begun before; a resumed sampler must not draw the same numbers again."""
    return len(list(out.glob("trial-*")))


def _settings(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    return asdict(recipe_file.build(EmbeddingRecipe, values, str(path)))


def _suggest(trial: optuna.Trial, key: str, choice: Range) -> Any:
    if choice.choices:
        return trial.suggest_categorical(key, choice.choices)
    whole = float(choice.low).is_integer() and float(choice.high).is_integer() and choice.step >= 1
    if whole:
        return trial.suggest_int(key, int(choice.low), int(choice.high), step=int(choice.step))
    return trial.suggest_float(key, choice.low, choice.high, log=choice.log, step=choice.step or None)


def _text(chosen: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}"
        for key, value in chosen.items()
    )


def _score(plan: Plan, figures: Mapping[str, float]) -> float:
    names = plan.objective or tuple(figures)
    missing = [name for name in names if name not in figures]
    if missing:
        raise InvalidArgument(
            "sweep.objective",
            f"`{missing[0]}` is no development figure{recipe_file.nearest(missing[0], figures)}",
        )
    return fmean(figures[name] for name in names)
