"""Golden tensors: what preprocessing and a model gave when it was released, for pictures that code drew.

They lie beside the model, and a test feeds them through serving's own path on every machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magpie.geometry import WHOLE_IMAGE, Box
from magpie.vision.model_card import InputSpec
from magpie.vision.preprocess import Pixels, crops, to_tensor
from training.quantize import session

# One object in each picture.
BOXES = (WHOLE_IMAGE, Box(0.1, 0.2, 0.7, 0.9), Box(0.45, 0.05, 0.55, 0.95))


def pictures() -> list[Pixels]:
    """Three drawn pictures: upright, wide, and small enough to be enlarged."""
    return [_drawn(200, 150, seed=1), _drawn(120, 260, seed=2), _drawn(64, 64, seed=3)]


def _drawn(height: int, width: int, seed: int) -> Pixels:
    """Coloured discs on a sloping ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    slope = (x / width)[..., None] * rng.uniform(0, 128, 3) + (y / height)[..., None] * rng.uniform(0, 128, 3)
    picture: NDArray[np.float64] = slope
    for _ in range(6):
        centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
        radius = rng.uniform(0.1, 0.3) * min(height, width)
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        picture[inside] = rng.uniform(0, 256, 3)
    return picture.astype(np.uint8)


def write_golden(path: Path, model: Path, spec: InputSpec) -> None:
    """Save `image_I` (H, W, 3) uint8, `boxes` (N, 4), `squares` (N, size, size, 3) uint8 and every output."""
    images = pictures()
    squares = np.concatenate([crops(image, [box], spec) for image, box in zip(images, BOXES, strict=True)])
    outputs = outputs_of(model, squares, spec)
    arrays = {f"image_{i}": image for i, image in enumerate(images)}
    np.savez_compressed(path, **arrays, boxes=np.array(BOXES, np.float32), squares=squares, **outputs)  # type: ignore[arg-type]


def outputs_of(model: Path, squares: Pixels, spec: InputSpec) -> dict[str, NDArray[np.float32]]:
    """Output name -> what a model gives for (N, size, size, 3)."""
    runner = session(model)
    names = [output.name for output in runner.get_outputs()]
    # One at a time: a batch may take another kernel, whose last digits differ.
    rows = [runner.run(names, {spec.name: to_tensor(square[None], spec)}) for square in squares]
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*rows, strict=True), strict=True)}
