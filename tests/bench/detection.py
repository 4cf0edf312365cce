"""Detection of a decoded photo, and non-maximum suppression against the naive double loop."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from magpie.geometry import Boxes, iou
from magpie.settings import Settings
from magpie.vision.bundle import Bundle
from magpie.vision.decode import decode
from magpie.vision.detector import Detector
from magpie.vision.nms import nms
from tests.bench.harness import measure, report
from tests.bench.photos import phone_photo


def main() -> None:
    settings = Settings.from_environment()
    bundle = Bundle.load(settings.bundle)
    pixels = decode(phone_photo()).pixels
    rows = []
    for threads in (1, 2):
        detector = Detector(bundle.detector_card, bundle.folder, threads)
        note = f"{len(detector.detect(pixels))} objects"
        rows.append(measure(f"detect, {threads} thread(s)", partial(detector.detect, pixels), note=note))
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.8, (500, 2))
    boxes = np.hstack([corners, corners + rng.uniform(0.02, 0.2, (500, 2))]).astype(np.float32)
    scores = rng.random(500, dtype=np.float32)
    assert nms(boxes, scores, 0.5, 30).tolist() == naive_nms(boxes, scores, 0.5, 30)
    rows.append(measure("nms of 500", partial(nms, boxes, scores, 0.5, 30)))
    naive = partial(naive_nms, boxes, scores, 0.5, 30)
    rows.append(measure("nms of 500, naive", naive, note="peer: double loop"))
    report("detection", rows, bundle=bundle.id)


def naive_nms(boxes: Boxes, scores: NDArray[np.float32], threshold: float, limit: int) -> list[int]:
    kept: list[int] = []
    for candidate in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(iou(boxes[[candidate]], boxes[[other]])[0, 0] <= threshold for other in kept):
            kept.append(candidate)
        if len(kept) == limit:
            break
    return kept


if __name__ == "__main__":
    main()
