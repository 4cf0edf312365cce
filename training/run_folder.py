"""What a training leaves in its run folder, whatever it trained: recipe, and weights in the checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magpie.errors import NotFound

RECIPE, CHECKPOINT = "recipe.json", "checkpoint.pt"


def save_recipe(run_dir: Path, recipe: Any) -> None:
    """Leave a run's whole recipe, a dataclass, in its folder."""
    (run_dir / RECIPE).write_text(json.dumps(asdict(recipe), indent=2) + "\n")


def recipe_values(run_dir: Path, kind: str) -> dict[str, Any]:
    """What a run was begun with; `kind` as `magpie train` calls it. Raises NotFound if there is no run."""
    path = run_dir / RECIPE
    if not path.is_file():
        raise NotFound(f"{path}: no run there; train first: magpie train {kind} --out {run_dir}")
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def trained_weights(run_dir: Path, kind: str) -> dict[str, Tensor]:
    """Of the run's task, averaged where the run keeps an average. Raises NotFound without a checkpoint."""
    path = run_dir / CHECKPOINT
    if not path.is_file():
        raise NotFound(f"{path}: no checkpoint; train first: magpie train {kind} --out {run_dir}")
    # Our own file: it holds random states too.
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    if "average" not in checkpoint:
        return dict(checkpoint["task"])
    return part_of(checkpoint["average"], "module.")  # of the averaged model


def part_of(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those of one part of a task, by their names in that part."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
