"""Every number that a detector's training depends on; defaults are those of the default bundle's detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from magpie.vision.model_card import InputSpec
from training import recipe_file
from training.detection.augment import Augment
from training.detection.contract import Network
from training.models.backbone import FILL, MEAN, SCALE
from training.models.detectors.dsod import Dsod, DsodShape
from training.models.detectors.fast_rcnn import FastRcnn, FastRcnnShape
from training.models.detectors.faster_rcnn import FasterRcnn, FasterRcnnShape
from training.models.detectors.modern import Modern, ModernShape
from training.models.detectors.rcnn import Rcnn, RcnnShape
from training.models.detectors.ssd import Ssd, SsdShape
from training.models.detectors.yolo import Yolo, YoloShape
from training.optimizer import Optimizer
from training.schedule import Schedule


@dataclass(frozen=True)
class BoxData:
    """Pictures with boxes. Paths are relative to the folder of the data sets."""

    data: str = ""  # `coco`: a JSON file or the folder of annotations.json; `voc`: a folder of XML files
    kind: Literal["coco", "voc", "composites", "clothes", "groceries"] = "coco"
    splits: tuple[str, ...] = ()  # only these, where pictures name one; empty: all
    share: float = 1.0  # how often a batch draws from it, relative to the others
    # Category -> class of the taxonomy. Others are classes by their own name; with one class all are of it.
    classes: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()  # categories that may be found or not
    only: tuple[str, ...] = ()  # as if nothing else were annotated; empty: all
    not_products: bool = False  # people, animals, vehicles and furniture are ignored too
    scenes: int = 4000  # `composites`: how many, made once
    rendered: int = 400  # `composites`: products drawn for them
    credit: str = ""  # whose it is and its licence, for the cards of models that are trained on it

    @property
    def title(self) -> str:
        """The data set's name in reports."""
        return Path(self.data).stem or self.kind


@dataclass(frozen=True)
class Model:
    """The network and how serving feeds it."""

    architecture: Literal["modern", "dsod", "ssd", "yolo", "faster_rcnn", "fast_rcnn", "rcnn"] = "modern"
    size: int = 320  # px, the input square
    modern: ModernShape = field(default_factory=ModernShape)
    dsod: DsodShape = field(default_factory=DsodShape)
    ssd: SsdShape = field(default_factory=SsdShape)
    yolo: YoloShape = field(default_factory=YoloShape)
    faster_rcnn: FasterRcnnShape = field(default_factory=FasterRcnnShape)
    fast_rcnn: FastRcnnShape = field(default_factory=FastRcnnShape)
    rcnn: RcnnShape = field(default_factory=RcnnShape)

    def __post_init__(self) -> None:
        if self.size % 32 or self.size < 64:
            raise ValueError(f"`size` must be a multiple of 32, at least 64, got {self.size}")

    @property
    def input(self) -> InputSpec:
        """How serving must feed the trained model."""
        return InputSpec("image", self.size, MEAN, SCALE, FILL)

    def build(self, classes: int, *, pretrained: bool = True) -> Network:
        """The untrained network; `pretrained` backbones have ImageNet's weights."""
        size = self.size
        networks: dict[str, Callable[[], Network]] = {
            "modern": lambda: Modern(size, classes, self.modern, pretrained=pretrained),
            "dsod": lambda: Dsod(size, classes, self.dsod),
            "ssd": lambda: Ssd(size, classes, self.ssd, pretrained=pretrained),
            "yolo": lambda: Yolo(size, classes, self.yolo, pretrained=pretrained),
            "faster_rcnn": lambda: FasterRcnn(size, classes, self.faster_rcnn, pretrained=pretrained),
            "fast_rcnn": lambda: FastRcnn(size, classes, self.fast_rcnn, pretrained=pretrained),
            "rcnn": lambda: Rcnn(size, classes, self.rcnn, pretrained=pretrained),
        }
        return networks[self.architecture]()


@dataclass(frozen=True)
class Keep:
    """How a detector that learns new classes is held to what it knew; see `distillation`."""

    responses: float = 1.0  # weight: where the old one fires, scores and boxes stay its own
    features: float = 1.0  # weight: the maps stay near the old one's
    sure: float = 0.2  # score from which what the old one finds is no background for the new one

    @property
    def nothing(self) -> bool:
        """Naive fine-tuning."""
        return self.responses == 0 and self.features == 0


@dataclass(frozen=True)
class Batch:
    """What one step sees."""

    pictures: int = 20
    steps: int = 100  # an epoch


@dataclass(frozen=True)
class DetectionRecipe:
    """A training of one detector."""

    data: tuple[BoxData, ...] = ()
    taxonomy: tuple[str, ...] = ("product",)
    development: float = 0.1  # share of the annotated pictures, kept out of training to steer by
    seed: int = 1
    model: Model = field(default_factory=Model)
    start: str = ""  # a run folder to begin with, whose classes are the first of `taxonomy`; else ImageNet
    keep: Keep = field(default_factory=Keep)
    pool: int = 0  # px of the squares that pictures are kept in; 0: the model's size
    batch: Batch = field(default_factory=Batch)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=3e-4, head_factor=6.0, ema=0.99))
    schedule: Schedule = field(default_factory=lambda: Schedule(epochs=8))
    augment: Augment = field(default_factory=lambda: Augment(fill=FILL))
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: mixed on CUDA, fp32 on a CPU

    def __post_init__(self) -> None:
        if not self.taxonomy or len(set(self.taxonomy)) != len(self.taxonomy):
            raise ValueError("`taxonomy` needs at least one class, each once")
        if not 0 <= self.development < 1:
            raise ValueError("`development` must lie in [0, 1)")


def read_recipe(path: Path, changes: Mapping[str, str] | None = None) -> DetectionRecipe:
    """The recipe of a file with `changes`, dotted key -> value.

    Raises InvalidArgument naming the file or key, what is wrong, and the nearest valid name.
    """
    return recipe_file.read(DetectionRecipe, path, changes)
