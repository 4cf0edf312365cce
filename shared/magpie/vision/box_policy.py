"""Which regions of a picture are embedded: the choices that measurements settle, all in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from magpie.geometry import WHOLE_IMAGE, Box
from magpie.vision.detector import Detection
from magpie.vision.model_card import BoxPolicy, DetectionSpec
from magpie.vision.views import View

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

    A box that covers `close_up_from` of the photo or more shows its thing from near, or many of a kind, as a
    heap of fruit does: half of its vector is that of a close-up, the box's middle with `close_up`, [0, 1), of
    its sides; 0: none. `whole_image_share`, [0, 1), is how much of the whole image's vector goes into that of
    a detected box. A box that the caller gave is never mixed: only that region was asked for.
    """

    whole_image_share: float = 0.0
    boxes: BoxPolicy = "all"
    close_up: float = 0.0
    close_up_from: float = 0.7

    @classmethod
    def of(cls, spec: DetectionSpec | None) -> QueryPolicy:
        """What the card of a detector says."""
        if spec is None:
            return cls()
        return cls(spec.whole_image_share, spec.box_policy, spec.close_up, spec.close_up_from)

    def objects(self, detections: Sequence[Detection]) -> list[Detection]:
        """Best first, at least one."""
        chosen = {"all": list(detections), "best": list(detections[:1]), "whole": []}[self.boxes]
        return chosen or [WHOLE]

    def asked(self, boxes: Sequence[Box]) -> list[Detection]:
        """The objects of a caller who gave boxes, in their order."""
        return [Detection(box, QUERY_LABEL, 1.0) for box in boxes]

    def views(self, objects: Sequence[tuple[Box, str]]) -> list[list[View]]:
        """What goes into the vector of each object, a box with its label."""
        return [
            [View(box, 1.0)] if label in (QUERY_LABEL, IMAGE_LABEL) else self._mixed(box)
            for box, label in objects
        ]

    def _mixed(self, box: Box) -> list[View]:
        own = 1.0 - self.whole_image_share
        whole = [View(WHOLE_IMAGE, self.whole_image_share)] if self.whole_image_share else []
        if not self.close_up or box.area < self.close_up_from:
            return [View(box, own), *whole]
        return [View(box, own / 2), View(box.middle(self.close_up), own / 2), *whole]
