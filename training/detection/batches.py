"""Batches for the detector: each picture drawn by source, augmented and matched to the anchors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from magpie.vision.preprocess import to_tensor
from training.detection.anchors import anchors
from training.detection.box_coding import corners
from training.detection.matching import match
from training.detection.pool import Pool
from training.detection.recipe import DetectorRecipe


@dataclass(frozen=True)
class Batch:
    """N pictures against A anchors."""

    pictures: Tensor  # (N, 3, 320, 320) float32
    targets: Tensor  # (N, A): 1 it must fire, 0 it must not, -1 not judged
    boxes: Tensor  # (N, A, 4) corners of the box to find; meaningful where the target is 1


class DetectorBatches:
    """A step's batch depends on the seed, the epoch and the step alone."""

    def __init__(self, pools: Mapping[str, Pool], recipe: DetectorRecipe) -> None:
        self._recipe = recipe
        self._pools = [pools[name] for name in asdict(recipe.shares)]
        shares = np.array(list(asdict(recipe.shares).values()))
        self._shares = shares / shares.sum()
        self._anchors = corners(torch.from_numpy(anchors()))

    def __len__(self) -> int:
        return self._recipe.steps

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for step in range(first_step, len(self)):
            yield self._batch(np.random.default_rng([self._recipe.seed, epoch, step]))

    def _batch(self, rng: np.random.Generator) -> Batch:
        squares, targets, boxes = [], [], []
        for source in rng.choice(len(self._pools), self._recipe.batch_size, p=self._shares):
            pool = self._pools[source]
            row = int(rng.integers(len(pool)))
            pixels, found, ignored = self._recipe.augment(
                rng, pool.pixels[row], pool.boxes[row], pool.ignored[row]
            )
            truth = torch.from_numpy(found)
            matches = match(self._anchors, truth, torch.from_numpy(ignored))
            squares.append(pixels)
            targets.append(matches.target)
            boxes.append(truth[matches.box] if len(truth) else torch.zeros(len(self._anchors), 4))
        return Batch(
            torch.from_numpy(to_tensor(np.stack(squares), self._recipe.input)),
            torch.stack(targets),
            torch.stack(boxes),
        )
