"""Batches for a detector: pictures drawn by data set, put together and augmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from magpie.vision.preprocess import to_tensor
from training.detection.augment import mosaic
from training.detection.contract import Targets
from training.detection.pool import Pool, Scene
from training.detection.proposals import Propose
from training.detection.recipe import DetectionRecipe


@dataclass(frozen=True)
class Batch:
    """N pictures and what is in them."""

    pictures: Tensor  # (N, 3, size, size) float32
    targets: tuple[Targets, ...]  # N

    def to(self, device: str) -> Batch:
        return Batch(self.pictures.to(device), tuple(of_one.to(device) for of_one in self.targets))


class DetectionBatches:
    """A step's batch depends on the seed, the epoch and the step alone."""

    def __init__(
        self,
        pools: Sequence[Pool],
        shares: Sequence[float],
        recipe: DetectionRecipe,
        propose: Propose | None = None,
    ) -> None:
        """`propose` for a network that needs proposals: they are made of each picture as it is augmented."""
        self._recipe = recipe
        self._propose = propose
        self._pools = pools
        self._shares = np.array(shares) / sum(shares)

    def __len__(self) -> int:
        return self._recipe.batch.steps

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for step in range(first_step, len(self)):
            rng = np.random.default_rng([self._recipe.seed, epoch, step])
            scenes = [self._scene(rng) for _ in range(self._recipe.batch.pictures)]
            yield batch_of(scenes, self._recipe, self._propose)

    def _scene(self, rng: np.random.Generator) -> Scene:
        augment, size = self._recipe.augment, self._recipe.model.size
        scene = self._drawn(rng)
        if rng.random() < augment.mosaic:
            scene = mosaic(rng, [scene, *(self._drawn(rng) for _ in range(3))], size)
        return augment(rng, scene, size)

    def _drawn(self, rng: np.random.Generator) -> Scene:
        pool = self._pools[int(rng.choice(len(self._pools), p=self._shares))]
        return pool[int(rng.integers(len(pool)))]


def batch_of(scenes: Sequence[Scene], recipe: DetectionRecipe, propose: Propose | None = None) -> Batch:
    """Scenes of the model's size as tensors."""
    pixels = np.stack([scene.pixels for scene in scenes])
    targets = (
        Targets(
            torch.from_numpy(scene.boxes.astype(np.float32)),
            torch.from_numpy(scene.labels),
            torch.from_numpy(scene.ignored.astype(np.float32)),
            torch.empty(0, 4) if propose is None else torch.from_numpy(propose(scene.pixels)),
        )
        for scene in scenes
    )
    return Batch(torch.from_numpy(to_tensor(pixels, recipe.model.input)), tuple(targets))
