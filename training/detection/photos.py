"""Real photos with labels for a detector of products, from three kinds of sources.

What counts as a product: a thing that a shop sells and a hand can carry. People, animals, vehicles and street
furniture are neither: the detector is not judged on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from magpie.geometry import Boxes
from training.datasets.catalogue_of_cards import DataEntry, examples_of
from training.detection.labelled_image import LabelledImage
from training.detection.teacher import Teacher

NOT_PRODUCTS = frozenset(
    (
        *("person", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
        *("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
        *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
        *("dining table", "toilet", "sink", "bed"),
    )
)
WHOLE = np.array([(0.0, 0.0, 1.0, 1.0)], np.float32)
NOTHING = np.zeros((0, 4), np.float32)

SURE = 0.35  # the teacher's score from which its box is a label
DOUBTFUL = 0.2  # and from which a photo is not called empty
LARGE = 0.12  # share of the photo that its subject covers at least
# Open Images names that the teacher gives to packages; "Person" is mostly the hand that holds one.
PACKAGE_NAMES = frozenset(("Box", "Bottle", "Book", "Mug", "Coffee cup"))
LOOSE_DEPARTMENTS = frozenset(("Fruit", "Vegetables"))


def clothes(data: Path, teacher: Teacher) -> Iterator[LabelledImage]:
    """Home photos of one garment each. The teacher knows few garments by name, but draws their boxes well."""
    for example in examples_of(DataEntry("clothing-top10", splits=("train",)), data):
        image = example.load()
        found = teacher(image, threshold=DOUBTFUL)
        sure = found.boxes[(found.scores >= SURE) & (_area(found.boxes) >= LARGE)]
        if len(sure):
            # A pair of shoes is two boxes; of a garment's nested boxes the surest is it.
            subject = sure if example.labels["category"] == "shoes" else sure[:1]
            yield LabelledImage.of_products(image, subject, found.boxes)


def groceries(data: Path, teacher: Teacher) -> Iterator[LabelledImage]:
    """Shop photos: a package held before a shelf is one product, a heap of fruit is one: the whole photo.

    A shelf full of other packages is not judged, nor is a photo used in which the teacher doubts.
    """
    for example in examples_of(DataEntry("grocery-store", splits=("train",)), data):
        image = example.load()
        found = teacher(image, threshold=DOUBTFUL)
        if example.labels["department"] in LOOSE_DEPARTMENTS:
            if not (found.scores >= SURE).any():
                yield LabelledImage.of_products(image, WHOLE, NOTHING)
            continue
        package = np.array([teacher.names[label] in PACKAGE_NAMES for label in found.labels], bool)
        sure = found.boxes[package & (found.scores >= SURE) & (_area(found.boxes) >= LARGE)]
        if len(sure):
            yield LabelledImage.of_products(image, sure[:1], WHOLE)


def _area(boxes: Boxes) -> Boxes:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
