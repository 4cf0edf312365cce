"""Retrieval by whole pictures: `python -m training.evaluate --data DIR [--run DIR] [--bundle DIR]`.

Prints recall@1 of a checkpoint, of a bundle's embedder, and of the ImageNet backbone as it comes.
Groceries: phone photos against the catalogue. LEGO: views of figures, leave one out, toys being unlike all
training data. Clothes: the category among other people's pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.errors import MagpieError
from magpie.vision.model_card import InputSpec, ModelCard
from training.embedding.retrieval import Run, measures
from training.embedding.runs import imagenet_run, onnx_run, torch_run, trained_embedder
from training.recipes.embedder_default import RECIPE

EXAMPLES = """examples:
  python -m training.evaluate --data ../data --bundle bundles/default
  python -m training.evaluate --data ../data --run .training/embedder --json
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("MAGPIE_DATA"), help="default $MAGPIE_DATA"
    )
    parser.add_argument("--run", type=Path, help="run folder of a training")
    parser.add_argument("--bundle", type=Path, help="bundle folder")
    parser.add_argument(
        "--size", type=int, default=RECIPE.size, help="px, of checkpoints; default %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print an object in place of a table")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data is missing, and so is MAGPIE_DATA")
    torch.set_num_threads(1)
    try:
        table = evaluate(arguments.data, arguments.run, arguments.bundle, arguments.size)
    except MagpieError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(table, indent=2) if arguments.json else as_text(table))


def evaluate(data: Path, run_dir: Path | None, bundle: Path | None, size: int) -> dict[str, dict[str, float]]:
    """Recall@1 by measure, for each model."""
    spec = InputSpec("image", size, RECIPE.input.mean, RECIPE.input.scale, RECIPE.input.fill)
    models: dict[str, tuple[Run, InputSpec]] = {"imagenet": (imagenet_run(), spec)}
    if run_dir is not None:
        models["checkpoint"] = (torch_run(trained_embedder(run_dir)), spec)
    if bundle is not None:
        card = ModelCard.load(bundle / "embedder.card.json")
        models["bundle"] = (onnx_run(card.verified_model(bundle)), card.input)
    return {
        name: dict(measures(run, spec, data)) for name, (run, spec) in tqdm(models.items(), desc="evaluating")
    }


def as_text(table: dict[str, dict[str, float]]) -> str:
    """A line a measure: data set, label, and each model's recall@1 in each space."""
    rows: dict[tuple[str, str], list[str]] = {}
    for model, figures in table.items():
        for figure, value in figures.items():
            data_set, space, label = figure.split()
            rows.setdefault((data_set, label), []).append(f"{model}/{space} {value:.3f}")
    return "\n".join(f"{' '.join(key):<18} " + "  ".join(cells) for key, cells in rows.items())


if __name__ == "__main__":
    main()
