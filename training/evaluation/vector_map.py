"""A map of a space: t-SNE of its vectors, and how a new run's map differs from an old one.

van der Maaten and Hinton 2008, with the PCA start that Kobak and Berens 2019 (Nature Communications 10) show
to keep the large-scale order, by openTSNE.

Two runs' vectors cannot be compared with each other, but which pictures lie close together can. So a new run
is placed in an old map by starting its own t-SNE at the old coordinates of the same pictures: what keeps its
neighbours stays, what has other neighbours moves. t-SNE also moves a little by itself; the old vectors
are sent through the same procedure to see how much, and only more than that is news.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openTSNE import TSNEEmbedding, affinity, initialization  # type: ignore[import-untyped]

from magpie.errors import InvalidArgument
from training.embedding.retrieval import Vectors

Coordinates = NDArray[np.float64]  # (N, 2)

PERPLEXITY = 30.0
LEAST_PICTURES = 12
NEIGHBOURS = 10
_GATHER, _SETTLE, _REPLACE = 250, 750, 250  # iterations: exaggerated, then as it is; from an old map


@dataclass(frozen=True)
class VectorMap:
    """Where each picture lies. `vectors` are kept so that a later run can be placed here."""

    names: tuple[str, ...]  # (N,)
    vectors: Vectors  # (N, D)
    xy: Coordinates


@dataclass(frozen=True)
class Movement:
    """What moved between two maps, a class of pictures a row. Distances are fractions of the map's radius."""

    name: str
    pictures: int
    moved: float  # median distance
    by_itself: float  # the same when the old vectors are placed anew
    neighbours_kept: float  # share of the 10 nearest pictures, by cosine, that still are; no map is involved
    centre_from: tuple[float, float]  # medians, map units
    centre_to: tuple[float, float]


def draw_map(names: Sequence[str], vectors: Vectors, *, seed: int = 0) -> VectorMap:
    """(N, D) -> a map from scratch. Raises InvalidArgument if there are fewer than LEAST_PICTURES."""
    _enough(len(names))
    start = initialization.pca(vectors.astype(np.float64), random_state=seed)
    embedding = _embedding(vectors, start, seed)
    embedding = embedding.optimize(n_iter=_GATHER, exaggeration=12, momentum=0.5)
    embedding = embedding.optimize(n_iter=_SETTLE, momentum=0.8)
    return VectorMap(tuple(names), vectors, np.asarray(embedding, np.float64))


def place_in(old: VectorMap, names: Sequence[str], vectors: Vectors, *, seed: int = 0) -> VectorMap:
    """A new run's map that begins where the same pictures lay in the old one.

    Pictures that are new start among those that they are most like. Raises InvalidArgument if the maps share
    fewer than LEAST_PICTURES.
    """
    _enough(len(names))
    row_of = {name: row for row, name in enumerate(old.names)}
    shared = np.array([row for row, name in enumerate(names) if name in row_of])
    if len(shared) < LEAST_PICTURES:
        raise InvalidArgument(
            "--map", f"the old map has {len(shared)} of these pictures, at least {LEAST_PICTURES} are needed"
        )
    before = old.xy[[row_of[names[row]] for row in shared]]
    start = np.empty((len(names), 2))
    start[shared] = before
    new = np.setdiff1d(np.arange(len(names)), shared)
    if len(new):
        like = np.argsort(-(vectors[new] @ vectors[shared].T), axis=1)[:, :NEIGHBOURS]
        # Beside each other, not on one point, where nothing could pull them apart.
        jitter = np.random.default_rng(seed).normal(0, 0.01 * radius(old.xy), (len(new), 2))
        start[new] = np.median(before[like], axis=1) + jitter
    # Not exaggerated first: attraction brings what must travel there, and all else stays in its place.
    embedding = _embedding(vectors, start, seed).optimize(n_iter=_REPLACE, momentum=0.8)
    placed = np.asarray(embedding, np.float64)
    return VectorMap(tuple(names), vectors, _aligned(placed, placed[shared], before))


def movements(old: VectorMap, new: VectorMap, classes: Mapping[str, str], *, seed: int = 0) -> list[Movement]:
    """Of each class of the pictures that both maps have; `classes` maps a name to its class."""
    rows_old = {name: row for row, name in enumerate(old.names)}
    names = [name for name in new.names if name in rows_old]
    rows_new = {name: row for row, name in enumerate(new.names)}
    a = np.array([rows_old[name] for name in names])
    b = np.array([rows_new[name] for name in names])
    again = place_in(old, [old.names[row] for row in a], old.vectors[a], seed=seed)
    scale = radius(old.xy)
    moved = np.linalg.norm(new.xy[b] - old.xy[a], axis=1) / scale
    by_itself = np.linalg.norm(again.xy - old.xy[a], axis=1) / scale
    kept = _neighbours_kept(old.vectors[a], new.vectors[b])
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(classes.get(name, ""), []).append(row)
    return [
        Movement(
            name=group,
            pictures=len(rows),
            moved=float(np.median(moved[rows])),
            by_itself=float(np.median(by_itself[rows])),
            neighbours_kept=float(kept[rows].mean()),
            centre_from=_centre(old.xy[a[rows]]),
            centre_to=_centre(new.xy[b[rows]]),
        )
        for group, rows in sorted(groups.items())
    ]


def save_maps(maps: Mapping[str, VectorMap], path: Path) -> None:
    """Write the maps of all spaces as one .npz: names, vectors, xy of each."""
    arrays: dict[str, NDArray[Any]] = {}
    for space, drawn in maps.items():
        arrays[f"{space}/names"] = np.array(drawn.names, np.str_)
        arrays[f"{space}/vectors"] = drawn.vectors
        arrays[f"{space}/xy"] = drawn.xy
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load_maps(path: Path) -> dict[str, VectorMap]:
    """Read what `save_maps` wrote. Raises InvalidArgument if it is not there or something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            spaces = sorted({key.split("/")[0] for key in file.files})
            return {
                space: VectorMap(
                    tuple(str(name) for name in file[f"{space}/names"]),
                    file[f"{space}/vectors"],
                    file[f"{space}/xy"],
                )
                for space in spaces
            }
    except (OSError, ValueError, KeyError) as error:
        raise InvalidArgument("--map", f"{path} is no map of an earlier report: {error}") from error


def radius(xy: Coordinates) -> float:
    """Root mean square distance from the centre."""
    return float(np.sqrt(((xy - xy.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _embedding(vectors: Vectors, start: Coordinates, seed: int) -> TSNEEmbedding:
    affinities = affinity.PerplexityBasedNN(
        vectors.astype(np.float64),
        perplexity=min(PERPLEXITY, (len(vectors) - 1) / 3),
        metric="euclidean",  # of unit vectors: the same order as cosine
        method="exact" if len(vectors) < 5_000 else "annoy",
        random_state=seed,
        n_jobs=1,  # several threads add up in another order each time
    )
    return TSNEEmbedding(start.copy(), affinities, negative_gradient_method="bh", n_jobs=1, random_state=seed)


def _aligned(xy: Coordinates, shared: Coordinates, before: Coordinates) -> Coordinates:
    """Turn, mirror, scale and shift a map so that its shared points come closest to where they were.

    No direction of a t-SNE map means anything, nor does its size, which grows as long as one goes on
    (Procrustes analysis; Schoenemann and Carroll 1970).
    """
    middle, target = shared.mean(axis=0), before.mean(axis=0)
    u, singular, vt = np.linalg.svd((shared - middle).T @ (before - target))
    scale = singular.sum() / max(((shared - middle) ** 2).sum(), 1e-300)
    aligned: Coordinates = scale * (xy - middle) @ (u @ vt) + target
    return aligned


def _neighbours_kept(old: Vectors, new: Vectors) -> NDArray[np.float64]:
    """(N, D), (N, E), the same pictures -> (N,) in [0, 1]."""
    count = min(NEIGHBOURS, len(old) - 1)
    nearest = []
    for vectors in (old, new):
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, -np.inf)
        nearest.append(np.argsort(-similarity, axis=1, kind="stable")[:, :count])
    both = (nearest[0][:, :, None] == nearest[1][:, None, :]).any(axis=2)
    kept: NDArray[np.float64] = both.mean(axis=1)
    return kept


def _centre(xy: Coordinates) -> tuple[float, float]:
    x, y = np.median(xy, axis=0)
    return float(x), float(y)


def _enough(count: int) -> None:
    if count < LEAST_PICTURES:
        raise InvalidArgument("map", f"{count} pictures are too few for one, {LEAST_PICTURES} are needed")
