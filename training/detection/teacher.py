"""A published detector labels our photos: SSD-MobileNetV2 for 23 classes of Open Images v4 (Apache-2.0).

It is the detector inside the npm package @mediapipe/objectron, turned from TFLite to ONNX with tf2onnx. Used
for pseudo-labels and as the peer in evaluation; never shipped. Anchors as in `ssd_anchor_generator` of the
TensorFlow object detection API.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from magpie.errors import InvalidArgument
from magpie.geometry import Boxes
from magpie.vision.nms import nms
from training.quantize import session

SIZE = 300
STRIDES = (16, 32, 64, 128, 256, 512)
SCALES = np.linspace(0.2, 0.95, len(STRIDES))
BACKGROUND = 0


@dataclass(frozen=True)
class TeacherDetections:
    """Best first. Boxes are fractions of the photo; a label is a row of the labels file."""

    boxes: Boxes  # (N, 4)
    scores: NDArray[np.float32]  # (N,)
    labels: NDArray[np.int64]  # (N,)


def teacher_anchors() -> NDArray[np.float32]:
    """(1917, 4): centre y, centre x, height, width, as fractions."""
    rows = []
    for layer, stride in enumerate(STRIDES):
        cells = math.ceil(SIZE / stride)
        scale = SCALES[layer]
        if layer == 0:
            shapes = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        else:
            following = SCALES[layer + 1] if layer + 1 < len(STRIDES) else 1.0
            shapes = [(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
            shapes.append((math.sqrt(scale * following), 1.0))
        for row in range(cells):
            for column in range(cells):
                for size, ratio in shapes:
                    root = math.sqrt(ratio)
                    rows.append(((row + 0.5) / cells, (column + 0.5) / cells, size / root, size * root))
    return np.array(rows, np.float32)


class Teacher:
    """Runs the teacher on photos, squeezed to 300 x 300 px as it was trained."""

    def __init__(self, model: Path) -> None:
        """`model` is an ONNX file, `NAME_labels.txt` beside it its classes. Else InvalidArgument."""
        labels = model.with_name(f"{model.stem}_labels.txt")
        for path in (model, labels):
            if not path.is_file():
                raise InvalidArgument("teacher", f"{path} is missing")
        self.names = tuple(labels.read_text().splitlines())
        self._session = session(model)
        self._anchors = teacher_anchors()

    def __call__(
        self, image: Image.Image, *, threshold: float, iou_threshold: float = 0.5, limit: int = 100
    ) -> TeacherDetections:
        small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        tensor = np.asarray(small, np.float32)[None] / 127.5 - 1.0
        encodings, logits = self._session.run(None, {self._session.get_inputs()[0].name: tensor})
        probabilities = 1.0 / (1.0 + np.exp(-logits[0].astype(np.float32)))
        probabilities[:, BACKGROUND] = 0.0
        labels, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
        keep = scores >= threshold
        boxes = self._decode(encodings[0])[keep]
        scores, labels = scores[keep], labels[keep]
        order = nms(boxes, scores, iou_threshold, limit)
        return TeacherDetections(boxes[order], scores[order], labels[order])

    def _decode(self, encodings: NDArray[np.float32]) -> Boxes:
        """(1917, 4) encodings -> boxes (1917, 4), clipped to the photo."""
        y, x, height, width = self._anchors.T
        centre_y = encodings[:, 0] / 10 * height + y
        centre_x = encodings[:, 1] / 10 * width + x
        half_height = np.exp(np.minimum(encodings[:, 2] / 5, 4)) * height / 2
        half_width = np.exp(np.minimum(encodings[:, 3] / 5, 4)) * width / 2
        sides = (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height)
        boxes: Boxes = np.clip(np.stack(sides, axis=1), 0.0, 1.0).astype(np.float32)
        return boxes
