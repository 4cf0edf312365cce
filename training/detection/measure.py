"""A detector's boxes on photos with known boxes: the same suppression and code for every detector."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from magpie.geometry import Boxes
from magpie.synthesis.products import SHOP_FAMILIES
from magpie.vision.detector import objects
from magpie.vision.model_card import DetectionSpec, InputSpec
from magpie.vision.preprocess import Letterbox, to_tensor
from training.datasets.composites import CompositeSource, rendered_cutouts
from training.detection.labelled_image import LabelledImage, Labels
from training.detection.teacher import Teacher
from training.detection.verdicts import Judged

Scores = NDArray[np.float32]
# (1, 3, size, size) -> boxes (1, A, 4) as fractions of the square, scores (1, A, C)
Run = Callable[[NDArray[np.float32]], tuple[Boxes, Scores]]
# photo -> boxes (N, 4), scores (N,), labels (N,), best first
Detect = Callable[[Image.Image], tuple[Boxes, Scores, Labels]]

# All boxes down to scores that never matter.
LOWEST_SCORE, IOU_THRESHOLD, MOST = 0.01, 0.6, 100


def drawn_scenes(count: int, seed: int = 0) -> list[LabelledImage]:
    """Scenes of the shop's product families, which no training draws, on drawn grounds."""
    source = CompositeSource([], rendered_cutouts(60, families=SHOP_FAMILIES), [])
    return [source.draw(np.random.default_rng([seed, scene])) for scene in range(count)]


def served(run: Run, spec: InputSpec, taxonomy: Sequence[str] = ("product",)) -> Detect:
    """A detector as serving runs it: letterbox, network, back to the photo, suppression.

    A box has one class: its surest.
    """
    return _detecting(run, spec, [tuple(taxonomy)])


def in_each_class(run: Run, spec: InputSpec, taxonomy: Sequence[str]) -> Detect:
    """A detector as COCO's figures want it: each class is looked for by itself, whatever the others say.

    One thing may be found in two classes, each with its own score: where the right one is only the second
    best, that lowers precision, but is not yet a miss. With one class, the same as `served`.
    """
    return _detecting(run, spec, [(name,) for name in taxonomy])


def _detecting(run: Run, spec: InputSpec, groups: Sequence[tuple[str, ...]]) -> Detect:
    """`groups` divide the taxonomy in its order. Only classes of one group suppress each other."""
    letterbox = Letterbox(spec.size, spec.fill)
    everything = [DetectionSpec(names, LOWEST_SCORE, IOU_THRESHOLD, MOST) for names in groups]
    ends = np.cumsum([len(names) for names in groups])[:-1]  # between the groups' columns
    place_of = {name: place for place, name in enumerate(chain.from_iterable(groups))}

    def detect(image: Image.Image) -> tuple[Boxes, Scores, Labels]:
        boxes, scores = run(to_tensor(letterbox(image)[None], spec))
        place = letterbox.placement(image.width, image.height)
        found = [
            detection
            for group, of_group in zip(everything, np.split(scores[0], ends, axis=1), strict=True)
            for detection in objects(boxes[0], of_group, group, place, MOST)
        ]
        found = sorted(found, key=lambda detection: -detection.score)[:MOST]
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


def class_agnostic(detect: Detect) -> Detect:
    """All classes taken as the first: a box counts by its place alone."""

    def detect_any(image: Image.Image) -> tuple[Boxes, Scores, Labels]:
        boxes, scores, labels = detect(image)
        return boxes, scores, np.zeros_like(labels)

    return detect_any


def timed(detect: Detect, seconds: list[float]) -> Detect:
    """Adds how long each photo took to `seconds`."""

    def detect_timed(image: Image.Image) -> tuple[Boxes, Scores, Labels]:
        started = time.perf_counter()
        found = detect(image)
        seconds.append(time.perf_counter() - started)
        return found

    return detect_timed


def judge(detect: Detect, images: Iterable[LabelledImage]) -> list[Judged]:
    """Detect in every picture."""
    return [
        Judged(*detect(labelled.image), labelled.boxes, labelled.labels, labelled.ignored)
        for labelled in images
    ]
