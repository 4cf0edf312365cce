"""The hash model of a bundle: for each space every method is fitted and measured, and the best one is kept.

The rule: a method's score is its lowest recall@10 (codes, then a shortlist rescored by float vectors) over
the collections that are real: the training vectors searched by held-out queries and, where there are several
data sets, each of them searched with a coder that was fitted without it, as a shop's goods are to the bundle.
The shortlist is short (`JUDGED_BY`), so that methods differ. The highest score is kept; of equal ones the
method that comes first in METHODS, the plainest first. Collections that are grown (grown_collection.py) are
measured and shown, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magpie.errors import InvalidArgument
from magpie.index.hamming import LARGEST_BITS, WORD
from magpie.index.hash_model import Coder, HashModel
from training.hashing import bernoulli_autoencoder, itq, tight_frame
from training.hashing.grown_collection import grown
from training.hashing.measure import SHORTLIST, Collection, K, Row, measure

Vectors = NDArray[np.float32]  # (N, d), unit norm
Tell = Callable[[str], None]

METHODS: tuple[ModuleType, ...] = (tight_frame, itq, bernoulli_autoencoder)
DEFAULT_BITS = {"identity": 256}
OTHER_BITS = 128  # of every other space
JUDGED_BY = 50  # rows rescored when methods are compared
GROWN = 100_000  # objects
GROWN_SHORTLISTS = (200, 500, 1000)
MOST_QUERIES = 500  # of a collection: a recall within 0.5 point, and the table in minutes
FEWEST = 100  # vectors of a data set that is left out to measure on


@dataclass(frozen=True)
class _Trial:
    """A collection, and what a coder that is measured on it may be fitted to."""

    collection: Collection
    fitted_to: Vectors
    shortlists: tuple[int, ...] = (JUDGED_BY, SHORTLIST)
    real: bool = True  # it counts


def bits_of(spaces: Sequence[str], bits: Mapping[str, int] | int | None) -> dict[str, int]:
    """Bits of each space; None: the defaults. Raises InvalidArgument for a number that cannot be."""
    if isinstance(bits, int):
        result = dict.fromkeys(spaces, bits)
    else:
        wanted = {**DEFAULT_BITS, **(bits or {})}
        unknown = set(bits or {}) - set(spaces)
        if unknown:
            raise InvalidArgument("bits", f"there is no space {', '.join(sorted(unknown))}")
        result = {space: wanted.get(space, OTHER_BITS) for space in spaces}
    for space, number in result.items():
        if number % WORD or not WORD <= number <= LARGEST_BITS:
            raise InvalidArgument(
                "bits", f"of {space} must be a multiple of {WORD}, at most {LARGEST_BITS}, got {number}"
            )
    return result


def fit_hash(
    vectors: Mapping[str, Vectors],
    bits: Mapping[str, int] | int | None,
    queries: Mapping[str, Vectors],
    seed: int = 0,
    *,
    datasets: Sequence[str] | None = None,
    table_bits: Sequence[int] = (),
    grow_to: int = GROWN,
    tell: Tell = lambda _: None,
) -> tuple[HashModel, dict[str, Any]]:
    """Fit, measure, choose.

    `vectors` are training vectors by space, `queries` held-out ones; `datasets` (N,) names the data set of
    each training vector. `table_bits` are measured beside those wanted. `grow_to` 0 leaves the grown
    collection out. `tell` hears of each step.

    Returns the model, and a report: `rule`, `judged_by`, `shortlist`, `chosen` (space -> method, bits, score
    of every method) and `table` (rows as of measure.Row, with `best`: of the methods at these bits,
    `at_bits_kept`, and `kept`: in the model). Queries that are training vectors too would say nothing: they
    are left out. Raises InvalidArgument if spaces differ or there is too little of either.
    """
    _check(vectors, queries, datasets)
    queries = {space: _not_among(rows, vectors[space], space) for space, rows in queries.items()}
    wanted = bits_of(list(vectors), bits)
    coders: dict[str, Coder] = {}
    table: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    for space, number in wanted.items():
        trials = _trials(vectors[space], queries[space], datasets, grow_to, seed)
        for count in sorted({number, *table_bits}):
            scores, fitted, rows = {}, {}, []
            for method in METHODS:
                tell(f"{space}, {count} bits, {method.METHOD}")
                fitted[method.METHOD], measured, scores[method.METHOD] = _tried(
                    space, method, count, trials, seed
                )
                rows += measured
            best = max(scores, key=lambda name: scores[name])  # the first of equals
            if count == number:
                coders[space] = fitted[best]
                chosen[space] = {"method": best, "bits": count, "scores": scores}
            table += [
                {
                    **asdict(row),
                    "best": row.method == best,
                    "at_bits_kept": count == number,
                    "kept": row.method == best and count == number,
                }
                for row in rows
            ]
    report = {
        "rule": (
            f"highest lowest recall@{K} over the real collections, {JUDGED_BY} rows rescored by float vectors"
        ),
        "judged_by": JUDGED_BY,
        "shortlist": SHORTLIST,
        "chosen": chosen,
        "table": table,
    }
    return HashModel(coders), report


def _tried(
    space: str, method: ModuleType, bits: int, trials: Sequence[_Trial], seed: int
) -> tuple[Coder, list[Row], float]:
    """The coder fitted to all, its rows, its score."""
    coders: dict[int, Coder] = {}  # id of what it was fitted to -> coder
    rows: list[Row] = []
    score = 1.0
    for trial in trials:
        key = id(trial.fitted_to)
        if key not in coders:
            coders[key] = method.fit(trial.fitted_to, bits, seed)
        measured = measure(space, coders[key], trial.collection, trial.shortlists)
        if trial.real:
            score = min(score, measured[0].rescored)  # the shortest list
        rows += measured
    return coders[id(trials[0].fitted_to)], rows, score


def _trials(
    vectors: Vectors, queries: Vectors, datasets: Sequence[str] | None, grow_to: int, seed: int
) -> list[_Trial]:
    """The first is of all training vectors."""
    rng = np.random.default_rng(seed)
    asked = queries[rng.permutation(len(queries))[:MOST_QUERIES]]
    trials = [_Trial(Collection.of("held-out queries", asked, vectors), vectors)]
    if grow_to > len(vectors):
        larger = grown(vectors, grow_to, seed)
        collection = Collection.of(f"grown to {grow_to}", asked, larger)
        trials.append(_Trial(collection, vectors, GROWN_SHORTLISTS, real=False))
    names = np.array(datasets if datasets is not None else [""] * len(vectors))
    for name in np.unique(names):
        own, others = vectors[names == name], vectors[names != name]
        if len(own) < FEWEST or len(others) < FEWEST:
            continue
        order = rng.permutation(len(own))
        count = min(MOST_QUERIES, len(own) // 4)
        collection = Collection.of(f"{name}, fitted without it", own[order[:count]], own[order[count:]])
        trials.append(_Trial(collection, others))
    return trials


def _check(
    vectors: Mapping[str, Vectors], queries: Mapping[str, Vectors], datasets: Sequence[str] | None
) -> None:
    if not vectors or set(vectors) != set(queries):
        raise InvalidArgument("queries", f"are of spaces {sorted(queries)}, the vectors of {sorted(vectors)}")
    for space, rows in vectors.items():
        asked = queries[space]
        if rows.ndim != 2 or asked.ndim != 2 or rows.shape[1] != asked.shape[1]:
            raise InvalidArgument(space, f"vectors are {rows.shape}, queries {asked.shape}")
        if len(rows) < 2 * K or not len(asked):
            raise InvalidArgument(
                space, f"{len(rows)} vectors and {len(asked)} queries are too few: {2 * K} and 1 are needed"
            )
        if not (np.isfinite(rows).all() and np.isfinite(asked).all()):
            raise InvalidArgument(space, "a vector is not finite")
        if datasets is not None and len(datasets) != len(rows):
            raise InvalidArgument("datasets", f"{len(datasets)} names for {len(rows)} vectors")


def _not_among(queries: Vectors, vectors: Vectors, space: str) -> Vectors:
    """The queries that are no training vectors. Raises InvalidArgument if none is left."""
    known = {row.tobytes() for row in np.ascontiguousarray(vectors, np.float32)}
    new = [row.tobytes() not in known for row in np.ascontiguousarray(queries, np.float32)]
    if not any(new):
        raise InvalidArgument(space, "all queries are training vectors too: a recall on them says nothing")
    left: Vectors = queries[np.array(new)]
    return left
