"""COCO's figures (Lin et al. 2014, arXiv 1405.0312), by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]

from training.detection.box_sizes import SIDE, SIZES
from training.detection.verdicts import Judged


@dataclass(frozen=True)
class CocoFigures:
    """AP is the mean over IoU .50 to .95 and over classes; NaN where nothing of the kind is there."""

    ap: float
    ap50: float
    ap75: float
    recall: float  # AR at 100 boxes a photo
    by_class: dict[str, dict[str, float]]  # class -> AP, AP50, recall
    by_size: dict[str, dict[str, float]]  # small, medium, large -> AP, recall

    def summary(self) -> dict[str, float]:
        """The four that a table has room for."""
        return {"AP": self.ap, "AP50": self.ap50, "AP75": self.ap75, "recall@100": self.recall}


def coco_figures(photos: Sequence[Judged], taxonomy: Sequence[str]) -> CocoFigures:
    """Ignored regions are COCO's crowds, of every class: what lies in one is neither right nor wrong."""
    evaluation = _evaluated(photos, len(taxonomy))
    precision = evaluation.eval["precision"]  # (IoU, recall, class, size, most boxes); -1: nothing there
    recall = evaluation.eval["recall"]  # (IoU, class, size, most boxes)
    sizes = ["all", *SIZES]
    return CocoFigures(
        ap=_mean(precision[:, :, :, 0, -1]),
        ap50=_mean(precision[0, :, :, 0, -1]),
        ap75=_mean(precision[5, :, :, 0, -1]),
        recall=_mean(recall[:, :, 0, -1]),
        by_class={
            name: {
                "AP": _mean(precision[:, :, place, 0, -1]),
                "AP50": _mean(precision[0, :, place, 0, -1]),
                "recall@100": _mean(recall[:, place, 0, -1]),
            }
            for place, name in enumerate(taxonomy)
        },
        by_size={
            name: {
                "AP": _mean(precision[:, :, :, place, -1]),
                "recall@100": _mean(recall[:, :, place, -1]),
            }
            for place, name in enumerate(sizes)
            if name != "all"
        },
    )


def coco_truth(photos: Sequence[Judged], classes: int) -> dict[str, Any]:
    """What is there, as COCO's JSON; categories count from 1."""
    annotations: list[dict[str, Any]] = []

    def add(photo: int, box: np.ndarray, category: int, crowd: int) -> None:
        x, y, width, height = _pixels(box)
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": photo,
                "category_id": category,
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": crowd,
            }
        )

    for number, photo in enumerate(photos):
        for box, label in zip(photo.truth, photo.truth_labels, strict=True):
            add(number, box, int(label) + 1, 0)
        for box in photo.ignored:
            for category in range(1, classes + 1):
                add(number, box, category, 1)
    return {
        "info": {},
        "images": [{"id": number, "width": SIDE, "height": SIDE} for number in range(len(photos))],
        "categories": [{"id": label + 1, "name": str(label)} for label in range(classes)],
        "annotations": annotations,
    }


def coco_results(photos: Sequence[Judged]) -> list[dict[str, Any]]:
    """What was found, as COCO's list of results."""
    return [
        {
            "image_id": number,
            "category_id": int(label) + 1,
            "bbox": _pixels(box),
            "score": float(score),
        }
        for number, photo in enumerate(photos)
        for box, score, label in zip(photo.found, photo.scores, photo.labels, strict=True)
    ]


def _evaluated(photos: Sequence[Judged], classes: int) -> Any:
    truth, results = coco_truth(photos, classes), coco_results(photos)
    with redirect_stdout(StringIO()):
        known = COCO(truth)
        evaluation = COCOeval_faster(known, known.loadRes(results), "bbox", print_function=lambda *_: None)
        evaluation.params.areaRng = [[0, SIDE**2 * 4], *map(list, SIZES.values())]
        evaluation.params.areaRngLbl = ["all", *SIZES]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _pixels(box: np.ndarray) -> list[float]:
    """Fractions (x0, y0, x1, y1) -> (x, y, width, height) in px of the square."""
    x0, y0, x1, y1 = (float(value) * SIDE for value in box)
    return [x0, y0, x1 - x0, y1 - y0]


def _mean(values: np.ndarray) -> float:
    there = values[values > -1]
    return float(there.mean()) if there.size else float("nan")
