"""What evaluation can run: a checkpoint, an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from magpie.geometry import Boxes
from training import recipe_file
from training.detection.contract import Network
from training.detection.measure import Run, Scores
from training.detection.proposals import PROPOSALS, proposed
from training.detection.recipe import DetectionRecipe
from training.models.detectors.rcnn import Rcnn
from training.quantize import session
from training.run_folder import RECIPE, part_of, recipe_values, trained_weights

KIND = "detection"
FITTED = "rcnn.npz"  # of a run that gradients did not train


def recipe_of(run_dir: Path) -> DetectionRecipe:
    """The recipe that a run was begun with. Raises NotFound if the folder holds no run."""
    return recipe_file.build(DetectionRecipe, recipe_values(run_dir, KIND), str(run_dir / RECIPE))


def is_of_detector(run_dir: Path) -> bool:
    """Whether a run's recipe is a detector's. Raises NotFound if the folder holds no run."""
    return "architecture" in recipe_values(run_dir, KIND)["model"]


def trained_network(run_dir: Path) -> Network:
    """The network of a run's latest checkpoint: the averaged weights where the run keeps them.

    Raises NotFound if there is none.
    """
    recipe = recipe_of(run_dir)
    if (run_dir / FITTED).is_file():
        return _fitted(recipe, run_dir / FITTED)
    weights = trained_weights(run_dir, KIND)
    network = recipe.model.build(len(recipe.taxonomy), pretrained=False)
    network.load_state_dict(part_of(weights, "network."))
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
