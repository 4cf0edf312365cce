"""Measure a bundle's detector: `python -m training.detection.evaluate --data DIR --bundle DIR`.

AP50 and recall@10 on photos that no training saw, a teacher beside it if one is given; and, where the bundle
has an embedder, what boxes do to recall@1 of grocery photos.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from magpie.errors import MagpieError
from magpie.geometry import Box
from magpie.vision.detector import Detector
from magpie.vision.model_card import ModelCard
from training.detection.measure import by_teacher, compare, served
from training.detection.retrieval import box_policies
from training.detection.runs import onnx_run
from training.detection.teacher import Teacher
from training.embedding import runs as embedding_runs

EXAMPLES = """examples:
  python -m training.detection.evaluate --data ../data --bundle bundles/default
  python -m training.detection.evaluate --data ../data --bundle bundles/default --teacher ../teacher.onnx
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.detection.evaluate",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("MAGPIE_DATA"), help="default $MAGPIE_DATA"
    )
    parser.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    parser.add_argument("--teacher", type=Path, help="ONNX file of the labelling detector, to compare with")
    parser.add_argument("--json", action="store_true", help="print an object in place of tables")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data is missing, and so is MAGPIE_DATA")
    try:
        figures = evaluate(arguments.data, arguments.bundle, arguments.teacher)
    except MagpieError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(figures, indent=2) if arguments.json else as_text(figures))


def evaluate(data: Path, bundle: Path, teacher: Path | None) -> dict[str, dict[str, dict[str, float]]]:
    """Detector -> test set -> figures; and "grocery" -> space -> policy -> recall@1."""
    card = ModelCard.load(bundle / "detector.card.json")
    detectors = {card.name: served(onnx_run(card.verified_model(bundle)), card.input)}
    if teacher is not None:
        detectors["teacher"] = by_teacher(Teacher(teacher))
    figures = compare(detectors, data)
    if (bundle / "embedder.card.json").is_file():
        figures["grocery"] = _retrieval(data, bundle, card)
    return figures


def _retrieval(data: Path, bundle: Path, card: ModelCard) -> dict[str, dict[str, float]]:
    detector = Detector(card, bundle, threads=1)
    embedder = ModelCard.load(bundle / "embedder.card.json")
    run = embedding_runs.onnx_run(embedder.verified_model(bundle))

    def best_box(image: Image.Image) -> Box | None:
        found = detector.detect(np.asarray(image), max_objects=1)
        return found[0].box if found else None

    return {
        space: box_policies(best_box, run, embedder.input, data, space)
        for space in embedder.spaces
        if space == "identity"
    }


def as_text(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """A line a detector and test set, a line a policy."""
    lines = []
    for label, sets in figures.items():
        for name, values in sets.items():
            if label == "grocery":
                lines += [f"grocery {name:10s} {policy:44s} {value:.3f}" for policy, value in values.items()]
            else:
                shown = "  ".join(f"{key} {value:.3f}" for key, value in values.items())
                lines.append(f"{label:24s} {name:22s} {shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
