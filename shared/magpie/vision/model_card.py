"""The card beside each ONNX model: all that serving must know to feed it as it was trained.

Serving builds its preprocessing from the card and refuses a model that does not match it, so that training
and serving cannot drift apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from magpie.errors import FailedPrecondition

BoxPolicy = Literal["all", "best", "whole"]  # what a query photo is searched by: its boxes, the best, none


@dataclass(frozen=True)
class InputSpec:
    """How pixels become the input tensor, float32 (N, 3, size, size)."""

    name: str
    size: int  # px, square
    mean: float  # subtracted from the 0..255 value
    scale: float  # then divided by
    fill: int  # grey of the letterbox border, 0..255
    context: float = 0.0  # how far a crop reaches past its box, as a fraction of the box's sides
    channel_order: Literal["RGB"] = "RGB"
    layout: Literal["NCHW"] = "NCHW"
    resize: Literal["letterbox"] = "letterbox"
    interpolation: Literal["bilinear-antialias"] = "bilinear-antialias"


@dataclass(frozen=True)
class OutputSpec:
    """One output. Embedders: (N, dimension), unit norm. Detectors: boxes (N, A, 4), scores (N, A, C)."""

    name: str
    dimension: int


@dataclass(frozen=True)
class DetectionSpec:
    """What turns a detector's raw boxes into objects. `scores` are probabilities, one column a class."""

    taxonomy: tuple[str, ...]
    score_threshold: float
    iou_threshold: float  # non-maximum suppression, over all classes together
    max_objects: int
    proposals: bool = False  # the model also takes boxes to look at, which serving cannot propose
    # Chosen by measurement with an embedder. The whole image stands in where there is no box.
    box_policy: BoxPolicy = "all"
    whole_image_share: float = 0.0  # [0, 1): of the whole image's vector, in the vector of each box

    def __post_init__(self) -> None:
        if self.box_policy not in get_args(BoxPolicy):
            raise ValueError(
                f"`box_policy` must be one of {', '.join(get_args(BoxPolicy))}, got {self.box_policy!r}"
            )
        if not 0 <= self.whole_image_share < 1:
            raise ValueError(f"`whole_image_share` must lie in [0, 1), got {self.whole_image_share}")


@dataclass(frozen=True)
class ModelCard:
    """A model, its input, its outputs, where it comes from and how good it is."""

    name: str
    kind: Literal["embedder", "detector"]
    version: str
    file: str  # ONNX file beside the card
    sha256: str  # of that file
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    metric: Literal["cosine"] | None = None
    detection: DetectionSpec | None = None
    training_data: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spaces(self) -> dict[str, int]:
        """Embedders: name of each space -> its dimension."""
        return {output.name: output.dimension for output in self.outputs}

    def save(self, path: Path) -> None:
        """Write the card as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> ModelCard:
        """Read a card. Raises FailedPrecondition if it is missing, or a field is missing or unknown."""
        try:
            raw = json.loads(path.read_text())
            raw["input"] = InputSpec(**raw["input"])
            raw["outputs"] = tuple(OutputSpec(**output) for output in raw["outputs"])
            if raw.get("detection"):
                detection = raw["detection"]
                raw["detection"] = DetectionSpec(**{**detection, "taxonomy": tuple(detection["taxonomy"])})
            raw["training_data"] = tuple(raw.get("training_data", ()))
            return cls(**raw)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FailedPrecondition(f"model card {path}: {error!r}") from error

    def verified_model(self, folder: Path) -> Path:
        """The ONNX file in `folder`. Raises FailedPrecondition unless its bytes are those the card names."""
        path = folder / self.file
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise FailedPrecondition(f"model {path}: {error}") from error
        if digest != self.sha256:
            raise FailedPrecondition(f"model {path} has SHA-256 {digest}, its card says {self.sha256}")
        return path
