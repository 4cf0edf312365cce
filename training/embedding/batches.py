"""Batches for metric learning: m pictures of each of some products, and pictures of no known product.

A photo and its product's catalogue picture always meet in a batch, for that is the pair a search must
match. A picture whose product nobody knows is taken as its own product and seen twice, augmented apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.vision.preprocess import Letterbox, to_tensor
from training.datasets.example import Example
from training.embedding.recipe import EmbedderRecipe

UNKNOWN = -1


@dataclass(frozen=True)
class Taxonomy:
    """The names behind the integer labels."""

    products: tuple[str, ...]
    categories: tuple[str, ...]
    departments: tuple[str, ...]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Taxonomy:
        return cls(
            tuple(sorted({f"{e.source}/{e.product}" for e in examples if e.product is not None})),
            tuple(sorted({f"{e.source}/{e.category}" for e in examples})),
            tuple(sorted({f"{e.source}/{e.department}" for e in examples})),
        )


@dataclass(frozen=True)
class Batch:
    """N pictures. All labels are int64 (N,)."""

    pictures: Tensor  # (N, 3, train_size, train_size) float32
    rows: Tensor  # which example each picture shows
    product: Tensor  # UNKNOWN where nobody knows
    item: Tensor  # the product, or else a number of the example's own
    category: Tensor
    department: Tensor


class EmbedderBatches:
    """All examples in memory, decoded; one epoch sees each photo of a product about once."""

    def __init__(self, examples: Sequence[Example], recipe: EmbedderRecipe) -> None:
        self.examples, self.recipe = examples, recipe
        self.taxonomy = Taxonomy.of(examples)
        product = {name: i for i, name in enumerate(self.taxonomy.products)}
        category = {name: i for i, name in enumerate(self.taxonomy.categories)}
        department = {name: i for i, name in enumerate(self.taxonomy.departments)}
        self.product = np.array([product.get(f"{e.source}/{e.product}", UNKNOWN) for e in examples])
        self.category = np.array([category[f"{e.source}/{e.category}"] for e in examples])
        self.department = np.array([department[f"{e.source}/{e.department}"] for e in examples])
        catalogue = np.array([e.catalogue for e in examples])
        self._photos = [np.flatnonzero((self.product == p) & ~catalogue) for p in range(len(product))]
        self._catalogue = [np.flatnonzero((self.product == p) & catalogue) for p in range(len(product))]
        self._unlabelled = np.flatnonzero(self.product == UNKNOWN)
        # Between a draw by picture and one by category: rare categories come more often than they occur.
        counts = np.bincount(self.category[self._unlabelled], minlength=len(category))
        chances = 1 / np.sqrt(counts[self.category[self._unlabelled]])
        self._unlabelled_chances = chances / chances.sum()
        self._pictures = [e.load() for e in tqdm(examples, desc="reading pictures")]
        self._letterbox = Letterbox(recipe.train_size, recipe.input.fill)

    def __len__(self) -> int:
        photos = sum(len(rows) for rows in self._photos)
        return max(1, photos // (self.recipe.products * self.recipe.photos))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for step in range(first_step, len(self)):
            rng = np.random.default_rng([self.recipe.seed, epoch, step])
            rows = self._draw(rng)
            yield self._batch(rows, rng)

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        """Rows of the examples, (batch_size,) at most."""
        recipe = self.recipe
        sizes = np.sqrt([len(rows) for rows in self._photos])
        chosen = rng.choice(
            len(sizes), min(recipe.products, len(sizes)), replace=False, p=sizes / sizes.sum()
        )
        rows: list[np.ndarray] = []
        for product in chosen:
            photos = self._photos[product]
            rows.append(rng.choice(photos, recipe.photos, replace=len(photos) < recipe.photos))
            rows.append(rng.permutation(self._catalogue[product])[:1])
        if len(self._unlabelled):
            count = min(recipe.unlabelled, len(self._unlabelled))
            lone = rng.choice(self._unlabelled, count, replace=False, p=self._unlabelled_chances)
            rows.append(np.repeat(lone, 2))
        return np.concatenate(rows)

    def _batch(self, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        augment = self.recipe.augment
        squares = np.stack([augment(self._pictures[row], self._letterbox, rng) for row in rows])
        product = self.product[rows]
        return Batch(
            pictures=torch.from_numpy(to_tensor(squares, self.recipe.input)),
            rows=torch.from_numpy(rows),
            product=torch.from_numpy(product),
            item=torch.from_numpy(np.where(product == UNKNOWN, len(self.taxonomy.products) + rows, product)),
            category=torch.from_numpy(self.category[rows]),
            department=torch.from_numpy(self.department[rows]),
        )

    def plain(self) -> Iterator[Tensor]:
        """Every picture once, in order, as serving sees it: (n, 3, size, size) at a time."""
        letterbox = Letterbox(self.recipe.size, self.recipe.input.fill)
        for first in range(0, len(self._pictures), 64):
            images: list[Image.Image] = self._pictures[first : first + 64]
            squares = np.stack([letterbox(image) for image in images])
            yield torch.from_numpy(to_tensor(squares, self.recipe.input))
