"""The detector: where in a photo are the products?

The model takes the letterboxed photo and gives `boxes` (N, A, 4), fractions of the square, and `scores`
(N, A, C), probabilities of the taxonomy's classes. What turns them into objects is here, once, in numpy.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from magpie.errors import FailedPrecondition
from magpie.geometry import Box, Boxes
from magpie.vision.model_card import DetectionSpec, ModelCard
from magpie.vision.nms import nms
from magpie.vision.onnx_session import OnnxSession, Tensor
from magpie.vision.preprocess import Letterbox, Pixels, Placement, to_tensor

MIN_SIDE = 0.01  # fraction of the image's side; a thinner box shows nothing to embed


class Detection(NamedTuple):
    """One object of a photo."""

    box: Box
    label: str  # a class of the taxonomy
    score: float  # probability, [0, 1]


class Detector:
    """A detector of a bundle. Its model loads at the first photo; several threads may use it."""

    def __init__(self, card: ModelCard, folder: Path, threads: int) -> None:
        """Raises FailedPrecondition if the card is no detector's."""
        self._spec = detection_spec(card)
        self._input = card.input
        self._letterbox = Letterbox(card.input.size, card.input.fill)
        self._session = OnnxSession(card, folder, threads)

    def load(self) -> None:
        """Load the model now. Raises FailedPrecondition if it does not match its card."""
        self._session.load()

    def detect(self, pixels: Pixels, max_objects: int = 0) -> list[Detection]:
        """Objects of (H, W, 3) uint8, best first; none if none is sure enough. 0: the card's own limit."""
        height, width = pixels.shape[:2]
        square = self._letterbox(Image.fromarray(pixels))
        outputs = self._session.run(to_tensor(square[None], self._input))
        return objects(
            outputs["boxes"][0],
            outputs["scores"][0],
            self._spec,
            self._letterbox.placement(width, height),
            max_objects or self._spec.max_objects,
        )


def detection_spec(card: ModelCard) -> DetectionSpec:
    """The card's detection spec. Raises FailedPrecondition unless it is a detector's and fits itself."""
    if card.kind != "detector" or card.detection is None:
        raise FailedPrecondition(
            f"model card {card.name} is no detector's: kind {card.kind}, needs `detection`"
        )
    if card.detection.proposals:
        raise FailedPrecondition(
            f"model card {card.name} needs proposals, and serving has no source of them: it is for comparison"
        )
    wanted = {"boxes": 4, "scores": len(card.detection.taxonomy)}
    found = {output.name: output.dimension for output in card.outputs}
    if found != wanted:
        raise FailedPrecondition(f"model card {card.name} has outputs {found}, its taxonomy needs {wanted}")
    return card.detection


def objects(
    boxes: Boxes, scores: Tensor, spec: DetectionSpec, placement: Placement, limit: int
) -> list[Detection]:
    """Boxes (A, 4) of the square, scores (A, C) -> at most `limit` objects of the image, best first."""
    best = scores.max(axis=1)
    sure = best >= spec.score_threshold  # also drops NaN
    boxes, scores, best = placement.to_image(boxes[sure]), scores[sure], best[sure]
    thick = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= MIN_SIDE  # also drops what lies on the border only
    boxes, scores, best = boxes[thick], scores[thick], best[thick]
    labels = scores.argmax(axis=1)
    return [
        Detection(Box(*boxes[i].tolist()), spec.taxonomy[labels[i]], float(best[i]))
        for i in nms(boxes, best, spec.iou_threshold, limit)
    ]
