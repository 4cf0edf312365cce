"""What evaluation can run: a checkpoint, an ONNX file, the ImageNet network as it comes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from training import recipe_file
from training.embedding.recipe import EmbeddingRecipe
from training.embedding.retrieval import Run, Vectors
from training.models.backbone import Lite0Features
from training.models.embedder import Embedder
from training.quantize import session
from training.run_folder import RECIPE, part_of, recipe_values, trained_weights

KIND = "embedding"


def recipe_of(run_dir: Path) -> EmbeddingRecipe:
    """The recipe that a run was begun with. Raises NotFound if the folder holds no run."""
    return recipe_file.build(EmbeddingRecipe, recipe_values(run_dir, KIND), str(run_dir / RECIPE))


def trained_embedder(run_dir: Path) -> Embedder:
    """The embedder of a run's latest checkpoint: the averaged weights where the run keeps them.

    Raises NotFound if there is none.
    """
    embedder = Embedder(recipe_of(run_dir).model.spaces, pretrained=False)
    embedder.load_state_dict(part_of(trained_weights(run_dir, KIND), "embedder."))
    return embedder.eval()


def start_from(task: nn.Module, run_dir: Path) -> None:
    """Give a task the weights of an earlier run: the network, and class directions of the same shape.

    Raises NotFound if `run_dir` holds no checkpoint.
    """
    own = task.state_dict()
    fitting = {
        k: v for k, v in trained_weights(run_dir, KIND).items() if k in own and own[k].shape == v.shape
    }
    task.load_state_dict(fitting, strict=False)


def torch_run(model: nn.Module, device: str = "cpu") -> Run:
    """Run a module that returns vectors by space."""

    @torch.no_grad()
    def run(tensor: NDArray[np.float32]) -> dict[str, Vectors]:
        pictures = torch.from_numpy(tensor).to(device).contiguous(memory_format=torch.channels_last)
        return {space: vectors.float().cpu().numpy() for space, vectors in model(pictures).items()}

    return run


def onnx_run(path: Path) -> Run:
    """Run an exported embedder."""
    model = session(path)
    input_name = model.get_inputs()[0].name
    spaces = [output.name for output in model.get_outputs()]
    return lambda tensor: dict(zip(spaces, model.run(spaces, {input_name: tensor}), strict=True))


class _ImageNet(nn.Module):
    """The backbone's own features, the same in every space, for comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Lite0Features()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = F.normalize(self.features(x), dim=1)
        return dict.fromkeys(("identity", "category", "similar"), features)


def imagenet_run() -> Run:
    """Run the backbone as it comes."""
    return torch_run(_ImageNet().eval())
