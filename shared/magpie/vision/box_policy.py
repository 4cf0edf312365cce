"""Which regions of a picture are embedded: the choices that measurements settle, all in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from magpie.geometry import WHOLE_IMAGE, Box
from magpie.vision.detector import Detection
from magpie.vision.model_card import BoxPolicy, DetectionSpec

QUERY_LABEL = "query"  # a box that the caller gave
IMAGE_LABEL = "image"  # the whole image

WHOLE = Detection(WHOLE_IMAGE, IMAGE_LABEL, 0.0)


@dataclass(frozen=True)
class CataloguePolicy:
    """Catalogue pictures: the best boxes and always the whole image.

    A picture that search found by its whole image before boxes were drawn is found that way still.
    """

    max_boxes: int = 2

    def objects(self, detections: Sequence[Detection]) -> list[Detection]:
        """Best first, the whole image last."""
        return [*detections[: self.max_boxes], WHOLE]


@dataclass(frozen=True)
class QueryPolicy:
    """Query photos: the boxes that the detector's card chooses, else the whole image.

    `whole_image_share`, [0, 1), is how much of the whole image's vector goes into the vector of a detected
    box; 0 leaves the boxes alone. A box that the caller gave is never mixed: only that region was asked for.
    """

    whole_image_share: float = 0.0
    boxes: BoxPolicy = "all"

    @classmethod
    def of(cls, spec: DetectionSpec | None) -> QueryPolicy:
        """What the card of a detector says."""
        return cls() if spec is None else cls(spec.whole_image_share, spec.box_policy)

    def objects(self, detections: Sequence[Detection]) -> list[Detection]:
        """Best first, at least one."""
        chosen = {"all": list(detections), "best": list(detections[:1]), "whole": []}[self.boxes]
        return chosen or [WHOLE]

    def asked(self, boxes: Sequence[Box]) -> list[Detection]:
        """The objects of a caller who gave boxes, in their order."""
        return [Detection(box, QUERY_LABEL, 1.0) for box in boxes]

    def shares(self, labels: Sequence[str]) -> list[float]:
        """How much of the whole image's vector goes into each object's."""
        return [0.0 if label in (QUERY_LABEL, IMAGE_LABEL) else self.whole_image_share for label in labels]
