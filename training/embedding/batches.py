"""Batches for metric learning: m pictures of each of some products, and pictures of no known product.

A photo and its product's catalogue picture always meet in a batch, for that is the pair a search must match.
Products that the model confuses meet too (`hard_negatives`). A picture whose product nobody knows is taken as
its own product, and so is one whose colours were turned (`datasets.recolour`).

A batch depends on the seed, the epoch and the step alone, wherever it is made: so loader processes may make
them in any number, and a resumed run sees the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from magpie.vision.preprocess import Letterbox, to_tensor
from training.datasets import recolour
from training.datasets.example import Example
from training.embedding.hard_negatives import Rivals
from training.embedding.recipe import EmbeddingRecipe

UNKNOWN = -1

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Vocabulary:
    """The names behind the integer labels. A name is unique within its data set: `grocery-store/Apple`."""

    products: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]  # label column -> its values

    @classmethod
    def of(cls, examples: Sequence[Example], columns: Sequence[str]) -> Vocabulary:
        """All names that occur."""
        return cls(
            tuple(sorted({e.product_name for e in examples if e.product_name is not None})),
            {
                column: tuple(
                    sorted({f"{e.dataset}/{e.labels[column]}" for e in examples if column in e.labels})
                )
                for column in columns
            },
        )


@dataclass(frozen=True)
class Batch:
    """N pictures. Labels are int64 (N,), UNKNOWN where nobody knows."""

    pictures: Tensor  # (N, 3, size, size) float32
    rows: Tensor  # which example each picture shows
    product: Tensor
    item: Tensor  # the product, or else a number of the example's or twin's own
    labels: Mapping[str, Tensor]  # label column -> (N,)
    catalogue: Tensor  # bool (N,): the shop's own picture
    as_taken: Tensor  # bool (N,): False for twins, whose colours were turned

    def to(self, device: str) -> Batch:
        """The same on another device."""
        return Batch(
            self.pictures.to(device, non_blocking=True),
            self.rows.to(device),
            self.product.to(device),
            self.item.to(device),
            {column: values.to(device) for column, values in self.labels.items()},
            self.catalogue.to(device),
            self.as_taken.to(device),
        )


class EmbeddingBatches:
    """One epoch sees each photo of a product about once, unless the recipe says how many steps it has."""

    def __init__(self, examples: Sequence[Example], recipe: EmbeddingRecipe) -> None:
        self.examples, self.recipe = examples, recipe
        columns = tuple(dict.fromkeys((*recipe.taxonomy, *recipe.domains)))
        self.vocabulary = Vocabulary.of(examples, columns)
        numbers = {name: number for number, name in enumerate(self.vocabulary.products)}
        self.product: Codes = np.array(
            [UNKNOWN if e.product_name is None else numbers[e.product_name] for e in examples]
        )
        self.labels = {column: self._codes(column) for column in columns}
        self.rivals = Rivals(len(numbers))
        catalogue = self.is_catalogue = np.array([e.catalogue for e in examples])
        self._photos = [np.flatnonzero((self.product == p) & ~catalogue) for p in range(len(numbers))]
        self._catalogue = [np.flatnonzero((self.product == p) & catalogue) for p in range(len(numbers))]
        self._pairable = np.flatnonzero(
            [len(a) + len(b) > 1 for a, b in zip(self._photos, self._catalogue, strict=True)]
        )
        self._chances = self._product_chances()
        self._lone = np.flatnonzero(self.product == UNKNOWN)
        self._lone_chances = self._chances_of_lone()

    def __len__(self) -> int:
        if self.recipe.batch.steps:
            return self.recipe.batch.steps
        batch = self.recipe.batch
        if len(self._pairable):
            return max(1, sum(len(rows) for rows in self._photos) // (batch.products * batch.photos))
        return max(1, len(self._lone) // max(1, batch.lone))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, made beside the training by `workers` processes."""
        workers = self.recipe.workers
        loader: DataLoader[Batch] = DataLoader(
            _Steps(self, epoch),
            batch_size=None,
            sampler=range(first_step, len(self)),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),  # the loader draws from it, not from the training's own
        )
        yield from loader

    def make(self, epoch: int, step: int) -> Batch:
        """The batch of one step."""
        rng = np.random.default_rng([self.recipe.seed, epoch, step])
        rows, twin = self._draw(rng)
        augment, sizes = self.recipe.augment, self.recipe.batch.sizes
        size = sizes[min(epoch * len(sizes) // self.recipe.schedule.epochs, len(sizes) - 1)]
        letterbox = Letterbox(size, self.recipe.model.input.fill)
        squares = np.stack(
            [
                augment.frame(example.load(2 * size), letterbox, rng, example.catalogue)
                for example in (self.examples[row] for row in rows)
            ]
        )
        for number in range(1, twin.max(initial=0) + 1):
            squares[twin == number] = recolour.turned(squares[twin == number], recolour.draw_turn(rng))
        as_taken = twin == 0
        product = np.where(as_taken, self.product[rows], UNKNOWN)
        # Numbers of products, then of examples, then of the batch's twins.
        first_example = len(self.vocabulary.products)
        item = np.where(product == UNKNOWN, first_example + rows, product)
        item = np.where(as_taken, item, first_example + len(self.examples) + twin)
        return Batch(
            pictures=torch.from_numpy(to_tensor(augment.photograph(squares, rng), self.recipe.model.input)),
            rows=torch.from_numpy(rows),
            product=torch.from_numpy(product),
            item=torch.from_numpy(item),
            labels={
                column: torch.from_numpy(np.where(as_taken, codes[rows], UNKNOWN))
                for column, codes in self.labels.items()
            },
            catalogue=torch.from_numpy(self.is_catalogue[rows]),
            as_taken=torch.from_numpy(as_taken),
        )

    def plain(self, rows: Sequence[int] | None = None, batch: int = 64) -> Iterator[Tensor]:
        """Pictures in order as serving sees them, (n, 3, size, size) at a time."""
        spec = self.recipe.model.input
        letterbox = Letterbox(spec.size, spec.fill)
        rows = range(len(self.examples)) if rows is None else rows
        for first in range(0, len(rows), batch):
            images = [self.examples[row].load(2 * spec.size) for row in rows[first : first + batch]]
            yield torch.from_numpy(to_tensor(np.stack([letterbox(image) for image in images]), spec))

    def _codes(self, column: str) -> Codes:
        numbers = {name: number for number, name in enumerate(self.vocabulary.labels[column])}
        return np.array(
            [numbers.get(f"{e.dataset}/{e.labels.get(column)}", UNKNOWN) for e in self.examples], np.int64
        )

    def _draw(self, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Rows of the examples, `Batch.pictures` at most, and the number of the twin each shows, or 0."""
        batch = self.recipe.batch
        wanted = min(batch.products, len(self._pairable))
        twins = round(wanted * batch.twins)
        products = self._draw_products(rng, wanted - twins)
        numbers = [0] * len(products) + list(range(1, twins + 1))
        rows = [self._pictures_of(product, rng) for product in (*products, *products[:twins])]
        twin = [np.full(len(drawn), number) for drawn, number in zip(rows, numbers, strict=True)]
        if len(self._lone) and batch.lone:
            count = min(batch.lone, len(self._lone))
            lone = rng.choice(self._lone, count, replace=False, p=self._lone_chances)
            rows.append(np.repeat(lone, batch.views))
            twin.append(np.zeros(len(rows[-1]), np.int64))
        return np.concatenate(rows), np.concatenate(twin)

    def _pictures_of(self, product: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """m photos and a catalogue picture, or m times its catalogue pictures if there is no photo."""
        photos, catalogue = self._photos[product], self._catalogue[product]
        shown = photos if len(photos) else catalogue
        drawn = rng.choice(shown, self.recipe.batch.photos, replace=len(shown) < self.recipe.batch.photos)
        return np.concatenate([drawn, rng.permutation(catalogue)[:1]]) if len(photos) else drawn

    def _draw_products(self, rng: np.random.Generator, wanted: int) -> list[int]:
        """Some at random, then rivals of those."""
        if not wanted:
            return []
        rivals = round(wanted * self.recipe.hard_negatives.share) if self.rivals.known else 0
        seeds = rng.choice(self._pairable, wanted - rivals, replace=False, p=self._chances)
        chosen = self.rivals.draw(rng, [int(seed) for seed in seeds], wanted)
        missing = wanted - len(chosen)
        if missing:  # too few rivals are known: others at random
            others = np.setdiff1d(self._pairable, chosen)
            chosen += [int(other) for other in rng.choice(others, missing, replace=False)]
        return chosen

    def _product_chances(self) -> NDArray[np.float64]:
        """Of each product in `_pairable`: by the root of its photos, then by its data set's share."""
        counts = np.array([max(1, len(self._photos[p])) for p in self._pairable], np.float64)
        first = [int(np.concatenate([self._photos[p], self._catalogue[p]])[0]) for p in self._pairable]
        return self._by_data_set(np.sqrt(counts), [self.examples[row].dataset for row in first])

    def _chances_of_lone(self) -> NDArray[np.float64]:
        """Between a draw by picture and one by label: rare labels come more often than they occur."""
        chances = np.ones(len(self._lone))
        for column in self.recipe.domains:
            codes = self.labels[column][self._lone]
            counts = np.bincount(codes[codes != UNKNOWN], minlength=1)
            chances[codes != UNKNOWN] = 1 / np.sqrt(counts[codes[codes != UNKNOWN]])
        return self._by_data_set(chances, [self.examples[int(row)].dataset for row in self._lone])

    def _by_data_set(self, weights: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float64]:
        """Weights within each data set, scaled to the data sets' shares; they sum to 1."""
        shares: dict[str, float] = {}
        for entry in self.recipe.data:
            shares[entry.title] = max(shares.get(entry.title, 0.0), entry.share)
        of = np.array(names)
        chances = weights.copy()
        for name in dict.fromkeys(names):
            chances[of == name] *= shares.get(name, 1.0) / weights[of == name].sum()
        return np.asarray(chances / max(chances.sum(), np.finfo(float).tiny))


class _Steps(Dataset[Batch]):
    """The steps of one epoch, for loader processes."""

    def __init__(self, batches: EmbeddingBatches, epoch: int) -> None:
        self._batches, self._epoch = batches, epoch

    def __getitem__(self, step: int) -> Batch:
        return self._batches.make(self._epoch, step)


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
