"""Every number that an embedder's training depends on, with the default bundle's value.

A recipe file (TOML, see `training/recipes/`) states only what it changes; `--set losses.triplet=1.0` changes
one value more. `training.recipe_file` reads both and refuses what is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from magpie.vision.model_card import InputSpec
from training import recipe_file
from training.datasets.augment import Augment
from training.datasets.catalogue_of_cards import DataEntry
from training.models.backbone import FILL, MEAN, SCALE
from training.optimizer import Optimizer
from training.schedule import Schedule


@dataclass(frozen=True)
class TrainingData(DataEntry):
    """Some pictures to train on."""

    share: float = 1.0  # how often a batch draws from this data set, relative to the others


@dataclass(frozen=True)
class Development:
    """What is kept out of training to steer by. Never the pictures that figures are reported on."""

    share: float = 0.08  # of the photos, carved out of the training data; 0: none
    visits: bool = True  # photos without a source are kept out by visits, guessed from their colours
    allow_near_duplicates: bool = False  # train although development photos are nearly in training


@dataclass(frozen=True)
class LeaveOut:
    """Products left out of training with all their pictures, to measure goods that a model never saw."""

    products: int = 0
    data: str = ""  # the data set that they are taken from; without it the first
    seed: int = 20


@dataclass(frozen=True)
class Model:
    """The network and how serving feeds it."""

    size: int = 224  # px, the input square when serving
    context: float = 0.05  # how far a crop reaches past its box when serving, as a fraction of its sides
    frozen_stages: int = 2  # of the backbone's four: strides 4 and 8 stay as ImageNet made them
    identity: int = 128  # dimension of each space
    category: int = 64
    similar: int = 64

    @property
    def spaces(self) -> dict[str, int]:
        """Name -> dimension."""
        return {"identity": self.identity, "category": self.category, "similar": self.similar}

    @property
    def input(self) -> InputSpec:
        """How serving must feed the trained model."""
        return InputSpec("image", self.size, MEAN, SCALE, FILL, self.context)


@dataclass(frozen=True)
class Batch:
    """What one step sees: m pictures of each of some products, and pictures of no known product."""

    products: int = 10
    photos: int = 3  # m, of each product; its catalogue picture comes on top
    twins: float = 0.0  # share of the products that are another one of the batch in other colours
    lone: int = 24  # pictures whose product nobody knows
    views: int = 1  # how often each lone picture is seen, augmented apart; from 2 on they are pairs
    # Random crops make objects larger than serving will see them; a smaller square in training evens that
    # out, and is faster (Touvron et al. 2019, arXiv 1906.06423). Several sizes share the epochs evenly: small
    # ones first cost little while there is most to learn (Tan and Le 2021, arXiv 2104.00298).
    sizes: tuple[int, ...] = (192,)  # px
    steps: int = 0  # an epoch; 0: as many as see each photo of a product about once

    def __post_init__(self) -> None:
        if not 0 <= self.twins <= 0.5:
            raise ValueError("`twins` must lie in [0, 0.5]: each twin stands beside its product")
        if not self.sizes or min(self.sizes) < 32:
            raise ValueError("`sizes` needs at least one size, of 32 px or more")

    @property
    def pictures(self) -> int:
        """At most, in one batch."""
        return self.products * (self.photos + 1) + self.lone * self.views


@dataclass(frozen=True)
class Losses:
    """Weights of the terms; 0 leaves one out."""

    # Catalogue pictures stay where distillation keeps them, so that those of new products are no worse off.
    hold_catalogue: bool = False
    # identity
    triplet: float = 0.5  # batch-hard, over siamese views of products
    triplet_scale: float = 10.0  # sharpness of its soft margin
    contrast: float = 0.0  # of photos with the pictures of the whole catalogue
    softmax: float = 1.0  # normalised softmax over the products
    proxy_anchor: float = 0.0  # the alternative
    proxy_margin: float = 0.1
    proxy_alpha: float = 32.0
    temperature: float = 0.05  # of the contrast and the normalised softmaxes
    # category: a normalised softmax for each label column
    category: float = 1.0
    smoothing: float = 0.1  # of the labels
    # similar: contrast over the taxonomy
    similar: float = 0.3
    # all: what ImageNet knew and no label says
    distillation: float = 2.0  # features near the ImageNet features
    geometry: float = 4.0  # cosines of the identity and similar spaces near those of the ImageNet features

    @property
    def learn_identity(self) -> bool:
        """Whether any term needs products."""
        return bool(self.triplet or self.contrast or self.softmax or self.proxy_anchor)


@dataclass(frozen=True)
class HardNegatives:
    """Products that the model confuses come into one batch."""

    every: int = 3  # epochs between minings of the whole training set; 0: never
    share: float = 0.4  # of a batch's products, drawn from those confused with the others in it
    rivals: int = 5  # kept for each product
    file: str = ""  # bad cases found in use: CSV of image, product_id, wrong_product_id


@dataclass(frozen=True)
class HubnessFit:
    """How much candidates pay for lying near to every photo, which is settled when the run is exported."""

    cost: float = 0.0  # of the recall@1 of known products that may be given for that of new ones


@dataclass(frozen=True)
class EmbeddingRecipe:
    """A training of the three spaces on one backbone."""

    data: tuple[TrainingData, ...] = ()
    held_out: tuple[DataEntry, ...] = ()  # what figures are reported on: no copy of it may be trained on
    taxonomy: tuple[str, ...] = ("department", "category")  # label columns, coarse to fine; then the product
    level_weights: tuple[float, ...] = (0.3, 0.6, 1.0)  # of the taxonomy's levels and of the product
    domains: tuple[str, ...] = ("category",)  # label columns that the category space learns
    seed: int = 1
    development: Development = field(default_factory=Development)
    leave_out: LeaveOut = field(default_factory=LeaveOut)
    model: Model = field(default_factory=Model)
    start: str = ""  # a run folder whose weights to start from; without it ImageNet's
    batch: Batch = field(default_factory=Batch)
    losses: Losses = field(default_factory=Losses)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    hard_negatives: HardNegatives = field(default_factory=HardNegatives)
    augment: Augment = field(default_factory=Augment)
    hubness: HubnessFit = field(default_factory=HubnessFit)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: mixed on CUDA, fp32 on a CPU
    workers: int = 1  # processes that load and augment beside the training
    skip_unreadable: bool = False  # leave out pictures that cannot be read, instead of stopping

    def __post_init__(self) -> None:
        if len(self.level_weights) != len(self.taxonomy) + 1:
            raise ValueError("`level_weights` needs one weight a level of `taxonomy` and one for the product")


def read_recipe(path: Path, changes: Mapping[str, str] | None = None) -> EmbeddingRecipe:
    """The recipe of a file with `changes`, dotted key -> value; a sweep's ranges in it are passed over.

    Raises InvalidArgument naming the file or key, what is wrong, and the nearest valid name.
    """
    values = recipe_file.table(path)
    values.pop("sweep", None)
    for key, text in (changes or {}).items():
        recipe_file.put(values, key, recipe_file.value_of(text))
    return recipe_file.build(EmbeddingRecipe, values, str(path))
