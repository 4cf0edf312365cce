"""Every number that an embedder's training depends on; `training.recipes` states differences only."""

from __future__ import annotations

from dataclasses import dataclass, field

from magpie.vision.model_card import InputSpec
from training.datasets.augment import Augment
from training.models.backbone import FILL, MEAN, SCALE


@dataclass(frozen=True)
class EmbedderRecipe:
    """Weights of the losses are relative to the identity's classification loss, which has weight 1."""

    size: int = 224  # px, the input square when serving
    # Random crops make objects larger than serving will see them; a smaller square in training evens that
    # out, and is faster (Touvron et al. 2019, arXiv 1906.06423).
    train_size: int = 192
    context: float = 0.05  # how far a crop reaches past its box when serving
    epochs: int = 12
    seed: int = 1
    # A batch: products x photos of each, a catalogue picture of each, pictures without product twice each.
    products: int = 12
    photos: int = 3
    unlabelled: int = 8
    # Optimisation
    frozen_stages: int = 2  # strides 4 and 8 stay as they are
    backbone_rate: float = 2e-4
    head_rate: float = 5e-4
    proxy_rate: float = 2e-3  # of the class directions that the normalised softmax learns
    weight_decay: float = 1e-3
    warmup: int = 60  # steps
    # Losses
    temperature: float = 0.05  # of the normalised softmax
    triplet: float = 0.5
    category: float = 0.5
    similar: float = 0.3
    level_weights: tuple[float, float, float] = (1.0, 0.6, 0.3)  # product, category, department
    distillation: float = 2.0  # features near the ImageNet features
    geometry: float = 4.0  # cosines of the identity and similar spaces near those of the ImageNet features
    augment: Augment = field(default_factory=Augment)

    @property
    def input(self) -> InputSpec:
        """How serving must feed the trained model."""
        return InputSpec("image", self.size, MEAN, SCALE, FILL, self.context)

    @property
    def batch_size(self) -> int:
        return self.products * (self.photos + 1) + 2 * self.unlabelled
