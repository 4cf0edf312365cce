"""How well vectors tell who took a picture, when all pictures show the same kind of thing.

A shop's photos share a room, a light, a camera. An embedding that remembers these finds the pictures of the
same photographer instead of the same product. So: within each category, guess the source of a picture
from its vector. Two probes (Alain and Bengio 2016, arXiv 1610.01644):

- nearest: the source of its nearest neighbour, each picture left out in turn. What search would feel.
- linear: logistic regression, stratified folds. What the vectors hold at all.

Chance is what sources drawn at random would give: shuffled within each category, many times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.model_selection import StratifiedKFold, cross_val_predict  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

from training.embedding.retrieval import Vectors

LEAST = 4  # pictures that a source needs in a category to take part
FOLDS = 4
SHUFFLES = 1_000


@dataclass(frozen=True)
class ProbeResult:
    """Shares of pictures, in [0, 1]."""

    pictures: int
    categories: int
    sources: int  # pairs of source and category that take part
    nearest: float  # accuracy of the nearest-neighbour probe
    chance: float  # and its mean when sources are shuffled
    chance_high: float  # 95 of 100 shuffles stay below
    p_value: float  # share of shuffles that do at least as well
    linear: float  # accuracy of the linear probe
    majority: float  # always guessing the most frequent source of the category

    @property
    def excess(self) -> float:
        """From 0, no better than chance, to 1, every picture's source is told."""
        return max(0.0, (self.nearest - self.chance) / (1 - self.chance)) if self.chance < 1 else 0.0


def probe(
    vectors: Vectors, categories: Sequence[str], sources: Sequence[str | None], *, seed: int = 0
) -> ProbeResult | None:
    """(N, D) unit norm. None where no category has pictures of at least two sources, LEAST of each."""
    rng = np.random.default_rng(seed)
    parts = _parts(categories, sources)
    if not parts:
        return None
    right, linear, majority = 0, 0, 0
    shuffled = np.zeros(SHUFFLES)
    for rows, owners in parts:
        part = vectors[rows].astype(np.float64)
        similarity = part @ part.T
        np.fill_diagonal(similarity, -np.inf)
        nearest = similarity.argmax(axis=1)
        right += int((owners[nearest] == owners).sum())
        # Every row is one way of handing the same sources out.
        dealt = rng.permuted(np.tile(owners, (SHUFFLES, 1)), axis=1)
        shuffled += (dealt[:, nearest] == dealt).sum(axis=1)
        linear += int((_guessed(part, owners, seed) == owners).sum())
        majority += int(np.bincount(owners).max())
    total = sum(len(rows) for rows, _ in parts)
    return ProbeResult(
        pictures=total,
        categories=len(parts),
        sources=sum(len(np.unique(owners)) for _, owners in parts),
        nearest=right / total,
        chance=float(shuffled.mean()) / total,
        chance_high=float(np.quantile(shuffled, 0.95)) / total,
        p_value=float((1 + (shuffled >= right).sum()) / (1 + SHUFFLES)),
        linear=linear / total,
        majority=majority / total,
    )


def _parts(
    categories: Sequence[str], sources: Sequence[str | None]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Of each category: rows, and the source of each as a number."""
    parts = []
    for category in sorted(set(categories)):
        rows = [row for row, name in enumerate(categories) if name == category and sources[row] is not None]
        count = Counter(sources[row] for row in rows)
        rows = [row for row in rows if count[sources[row]] >= LEAST]
        names, owners = np.unique([str(sources[row]) for row in rows], return_inverse=True)
        if len(names) > 1:
            parts.append((np.array(rows), owners))
    return parts


def _guessed(vectors: NDArray[np.float64], owners: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Each picture's source, guessed by a classifier that has not seen it."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    guessed: NDArray[np.int64] = cross_val_predict(classifier, vectors, owners, cv=folds)
    return guessed
