"""What evaluation can run: a checkpoint, an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from magpie.errors import NotFound
from magpie.geometry import Boxes
from training.detection.measure import Run, Scores
from training.models.detector import Detector
from training.quantize import session


def trained_detector(run_dir: Path) -> Detector:
    """The detector of a run's latest checkpoint. Raises NotFound if there is none."""
    path = run_dir / "checkpoint.pt"
    if not path.is_file():
        raise NotFound(f"{path}: train first, python -m training.train detector --out {run_dir}")
    task = torch.load(path, weights_only=False)["task"]  # our own file: it holds random states too
    prefix = "detector."
    detector = Detector(pretrained=False)
    detector.load_state_dict({k.removeprefix(prefix): v for k, v in task.items() if k.startswith(prefix)})
    return detector.eval()


def torch_run(served: nn.Module) -> Run:
    """Run a `ServedDetector`."""

    @torch.no_grad()
    def run(tensor: NDArray[np.float32]) -> tuple[Boxes, Scores]:
        boxes, scores = served(torch.from_numpy(tensor).contiguous(memory_format=torch.channels_last))
        return boxes.numpy(), scores.numpy()

    return run


def onnx_run(path: Path) -> Run:
    """Run an exported detector on one thread."""
    model = session(path)
    name = model.get_inputs()[0].name

    def run(tensor: NDArray[np.float32]) -> tuple[Boxes, Scores]:
        boxes, scores = model.run(["boxes", "scores"], {name: tensor})
        return boxes, scores

    return run
