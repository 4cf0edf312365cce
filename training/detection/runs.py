"""What evaluation can run: a checkpoint, an ONNX file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from magpie.errors import NotFound
from magpie.geometry import Boxes
from training import recipe_file
from training.detection.contract import Network
from training.detection.measure import Run, Scores
from training.detection.proposals import PROPOSALS, proposed
from training.detection.recipe import DetectionRecipe
from training.models.detectors.rcnn import Rcnn
from training.quantize import session

RECIPE = "recipe.json"
FITTED = "rcnn.npz"  # of a run that gradients did not train


def save_recipe(run_dir: Path, recipe: DetectionRecipe) -> None:
    """Leave a run's whole recipe in its folder."""
    (run_dir / RECIPE).write_text(json.dumps(asdict(recipe), indent=2) + "\n")


def recipe_of(run_dir: Path) -> DetectionRecipe:
    """The recipe that a run was begun with. Raises NotFound if the folder holds no run."""
    path = run_dir / RECIPE
    if not path.is_file():
        raise NotFound(f"{path}: no run there; train first: magpie train detection --out {run_dir}")
    return recipe_file.build(DetectionRecipe, json.loads(path.read_text()), str(path))


def is_of_detector(run_dir: Path) -> bool:
    """Whether a run's recipe is a detector's. Raises NotFound if the folder holds no run."""
    path = run_dir / RECIPE
    if not path.is_file():
        raise NotFound(f"{path}: no run there; train first: magpie train detection --out {run_dir}")
    return "architecture" in json.loads(path.read_text())["model"]


def trained_network(run_dir: Path) -> Network:
    """The network of a run's latest checkpoint: the averaged weights where the run keeps them.

    Raises NotFound if there is none.
    """
    recipe = recipe_of(run_dir)
    path = run_dir / "checkpoint.pt"
    if (run_dir / FITTED).is_file():
        return _fitted(recipe, run_dir / FITTED)
    if not path.is_file():
        raise NotFound(f"{path}: no checkpoint; train first: magpie train detection --out {run_dir}")
    # Our own file: it holds random states too.
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    prefix, weights = "network.", checkpoint["task"]
    if "average" in checkpoint:
        prefix, weights = "module.network.", checkpoint["average"]
    network = recipe.model.build(len(recipe.taxonomy), pretrained=False)
    network.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return network.eval()


def _fitted(recipe: DetectionRecipe, path: Path) -> Network:
    """R-CNN, whose file has what was fitted, and not the ImageNet weights under it."""
    network = Rcnn(recipe.model.size, len(recipe.taxonomy), recipe.model.rcnn)
    network.load(path)
    return network.eval()


def torch_run(network: Network, device: str = "cpu") -> Run:
    """Run a network that is in evaluation mode; one that needs proposals gets those of selective search."""

    @torch.no_grad()
    def run(tensor: NDArray[np.float32]) -> tuple[Boxes, Scores]:
        pictures = torch.from_numpy(tensor).to(device).contiguous(memory_format=torch.channels_last)
        where = [torch.from_numpy(proposed(tensor)).to(device)] if network.needs_proposals else []
        boxes, scores = network(pictures, *where)
        return boxes.cpu().numpy(), scores.cpu().numpy()

    return run


def onnx_run(path: Path) -> Run:
    """Run an exported detector on one thread; one that needs proposals gets those of selective search."""
    model = session(path)
    name, *more = (entry.name for entry in model.get_inputs())

    def run(tensor: NDArray[np.float32]) -> tuple[Boxes, Scores]:
        where = {PROPOSALS: proposed(tensor)} if PROPOSALS in more else {}
        boxes, scores = model.run(["boxes", "scores"], {name: tensor, **where})
        return boxes, scores

    return run
