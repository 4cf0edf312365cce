"""What evaluation can run: a checkpoint, an ONNX file, the ImageNet network as it comes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from magpie.errors import NotFound
from training.embedding.retrieval import Run, Vectors
from training.models.backbone import Lite0Features
from training.models.embedder import Embedder
from training.quantize import session


def trained_embedder(run_dir: Path) -> Embedder:
    """The embedder of a run's latest checkpoint. Raises NotFound if there is none."""
    path = run_dir / "checkpoint.pt"
    if not path.is_file():
        raise NotFound(f"{path}: train first, python -m training.train embedder --out {run_dir}")
    task = torch.load(path, weights_only=False)["task"]
    prefix = "embedder."
    embedder = Embedder(pretrained=False)
    embedder.load_state_dict({k.removeprefix(prefix): v for k, v in task.items() if k.startswith(prefix)})
    return embedder.eval()


def torch_run(model: nn.Module) -> Run:
    """Run a module that returns vectors by space."""

    @torch.no_grad()
    def run(tensor: NDArray[np.float32]) -> dict[str, Vectors]:
        pictures = torch.from_numpy(tensor).contiguous(memory_format=torch.channels_last)
        return {space: vectors.numpy() for space, vectors in model(pictures).items()}

    return run


def onnx_run(path: Path) -> Run:
    """Run an exported embedder."""
    model = session(path)
    input_name = model.get_inputs()[0].name
    spaces = [output.name for output in model.get_outputs()]
    return lambda tensor: dict(zip(spaces, model.run(spaces, {input_name: tensor}), strict=True))


class _ImageNet(nn.Module):
    """The backbone's own features in one space, for comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Lite0Features()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"imagenet": F.normalize(self.features(x), dim=1)}


def imagenet_run() -> Run:
    """Run the backbone as it comes."""
    return torch_run(_ImageNet().eval())
