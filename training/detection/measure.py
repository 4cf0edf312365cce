"""How good a detector is, class-agnostic: a box counts by its place alone.

The same photos, suppression and code for every detector.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.geometry import Boxes
from magpie.synthesis.products import SHOP_FAMILIES
from magpie.vision.detector import objects
from magpie.vision.model_card import DetectionSpec, InputSpec
from magpie.vision.preprocess import Letterbox, to_tensor
from training.datasets.composites import CompositeSource, rendered_cutouts
from training.detection import photos
from training.detection.coco_metrics import coco_figures
from training.detection.labelled_image import LabelledImage, Labels
from training.detection.teacher import Teacher
from training.detection.verdicts import Judged, best_f1_threshold

Scores = NDArray[np.float32]
# (1, 3, size, size) -> boxes (1, A, 4) as fractions of the square, scores (1, A, C)
Run = Callable[[NDArray[np.float32]], tuple[Boxes, Scores]]
# photo -> boxes (N, 4), scores (N,), labels (N,), best first
Detect = Callable[[Image.Image], tuple[Boxes, Scores, Labels]]

# All boxes down to scores that never matter.
LOWEST_SCORE, IOU_THRESHOLD, MOST = 0.01, 0.6, 100
SCENES = 100


def held_out_sets(data: Path) -> dict[str, list[LabelledImage]]:
    """Name -> photos that no training saw. What is no product is judged only where the name says so."""
    coco = data / "coco-open-det"
    return {
        "cards test": list(photos.annotated(data / "playing-cards-det", "test")),
        "coco val products": list(photos.annotated(coco, "val2017")),
        "coco val but persons": list(photos.annotated(coco, "val2017", frozenset(["person"]))),
        "coco val all": list(photos.annotated(coco, "val2017", frozenset())),
        "drawn scenes": drawn_scenes(SCENES),
    }


def drawn_scenes(count: int, seed: int = 0) -> list[LabelledImage]:
    """Scenes of the shop's product families, which no training draws, on drawn grounds."""
    source = CompositeSource([], rendered_cutouts(60, families=SHOP_FAMILIES), [])
    return [source.draw(np.random.default_rng([seed, scene])) for scene in range(count)]


def served(run: Run, spec: InputSpec, taxonomy: Sequence[str] = ("product",)) -> Detect:
    """A detector as serving runs it: letterbox, network, back to the photo, suppression."""
    letterbox = Letterbox(spec.size, spec.fill)
    everything = DetectionSpec(tuple(taxonomy), LOWEST_SCORE, IOU_THRESHOLD, MOST)
    place_of = {name: place for place, name in enumerate(taxonomy)}

    def detect(image: Image.Image) -> tuple[Boxes, Scores, Labels]:
        boxes, scores = run(to_tensor(letterbox(image)[None], spec))
        place = letterbox.placement(image.width, image.height)
        found = objects(boxes[0], scores[0], everything, place, MOST)
        return (
            np.array([detection.box for detection in found], np.float32).reshape(-1, 4),
            np.array([detection.score for detection in found], np.float32),
            np.array([place_of[detection.label] for detection in found], np.int64),
        )

    return detect


def by_teacher(teacher: Teacher) -> Detect:
    """The teacher, its classes taken as one."""

    def detect(image: Image.Image) -> tuple[Boxes, Scores, Labels]:
        found = teacher(image, threshold=LOWEST_SCORE, iou_threshold=IOU_THRESHOLD, limit=MOST)
        return found.boxes, found.scores, np.zeros(len(found.boxes), np.int64)

    return detect


def judge(detect: Detect, images: Iterable[LabelledImage]) -> list[Judged]:
    """Detect in every picture."""
    return [
        Judged(*detect(labelled.image), labelled.boxes, labelled.labels, labelled.ignored)
        for labelled in images
    ]


def compare(detectors: Mapping[str, Detect], data: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Detector -> test set -> figures, milliseconds a photo among them (decoded photo to boxes)."""
    sets = held_out_sets(data)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for label, detect in detectors.items():
        table[label] = {}
        for name, images in tqdm(sets.items(), desc=label):
            started = time.perf_counter()
            judged = judge(detect, images)
            seconds = time.perf_counter() - started
            threshold, f1 = best_f1_threshold(judged)
            table[label][name] = {
                "images": len(images),
                **coco_figures(judged, ("product",)).summary(),
                "best F1": f1,
                "at score": threshold,
                "ms": 1000 * seconds / len(images),
            }
    return table
