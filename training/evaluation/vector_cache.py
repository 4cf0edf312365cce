"""Vectors of pictures, each embedded once per condition, whichever sets it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magpie.ranking.hubness import Hubness
from magpie.vision.model_card import InputSpec
from training.datasets.example import Example
from training.embedding.retrieval import Run, Vectors, embed
from training.evaluation.conditions import Condition, under

BATCH = 32


class VectorCache:
    """One model's vectors in memory. `tick` is called with the number of pictures that are done."""

    def __init__(
        self,
        run: Run,
        spec: InputSpec,
        tick: Callable[[int], None] = lambda _: None,
        *,
        hubness: Hubness | None = None,
    ) -> None:
        self._run = run
        self._spec = spec
        self._tick = tick
        self._hubness = hubness
        self._vectors: dict[tuple[Path, str], dict[str, Vectors]] = {}  # -> space -> (D,)

    def penalty(self, space: str, gallery: Vectors) -> NDArray[np.float64]:
        """What ranking takes off the cosines of these, (G, D) -> (G,): hubness, in `identity`."""
        if self._hubness is None:
            return np.zeros(len(gallery))
        return self._hubness.penalties(gallery, [space])[:, 0]

    def missing(self, examples: Sequence[Example], condition: Condition | None = None) -> list[Example]:
        """Those that are not embedded yet, each file once."""
        name = condition.name if condition else ""
        by_path = {example.path: example for example in examples}
        return [example for path, example in by_path.items() if (path, name) not in self._vectors]

    def vectors(self, examples: Sequence[Example], condition: Condition | None = None) -> dict[str, Vectors]:
        """Space -> (N, D), unit norm. Raises InvalidArgument naming a file that is no picture."""
        name = condition.name if condition else ""
        missing = self.missing(examples, condition)
        for first in range(0, len(missing), BATCH):
            part = missing[first : first + BATCH]
            found = embed(self._run, self._spec, [under(condition, example) for example in part], BATCH)
            for row, example in enumerate(part):
                self._vectors[example.path, name] = {space: rows[row] for space, rows in found.items()}
            self._tick(len(part))
        rows = [self._vectors[example.path, name] for example in examples]
        return {space: np.stack([row[space] for row in rows]) for space in rows[0]}
