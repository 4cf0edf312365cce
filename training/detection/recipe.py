"""Every number that a detector's training depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

from magpie.vision.model_card import InputSpec
from training.detection.augment import Augment
from training.models.backbone import FILL, MEAN, SCALE
from training.models.detector import INPUT_SIZE


@dataclass(frozen=True)
class Shares:
    """How often a batch draws from each source, relative to the others."""

    composites: float = 9.0
    cards: float = 2.0
    fruit: float = 0.5
    coco: float = 1.0
    clothes: float = 2.5
    groceries: float = 2.5


@dataclass(frozen=True)
class DetectorRecipe:
    """Defaults are the default bundle's."""

    epochs: int = 8
    steps: int = 100  # an epoch
    batch_size: int = 20
    seed: int = 1
    # Data
    composites: int = 4000  # scenes, made once
    rendered: int = 400  # products drawn for them
    shares: Shares = field(default_factory=Shares)
    augment: Augment = field(default_factory=lambda: Augment(fill=FILL))
    # Optimisation
    frozen_stages: int = 2  # strides 4 and 8 stay as they are
    backbone_rate: float = 3e-4
    head_rate: float = 2e-3
    weight_decay: float = 1e-3
    warmup: int = 60  # steps
    # Loss
    box_weight: float = 1.5

    @property
    def input(self) -> InputSpec:
        """How serving must feed the trained model."""
        return InputSpec("image", INPUT_SIZE, MEAN, SCALE, FILL)
