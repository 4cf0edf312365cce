"""Does a bundle, fed by serving's own path, still give what it gave when it was exported?

`X.golden.npz` beside the model X.onnx holds drawn pictures, their squares and the outputs (see
training/golden.py and training/detection/export.py). int8 kernels of another processor round otherwise, so
the tolerances leave room for that; a wrong mean, scale or channel order moves more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from magpie.errors import FailedPrecondition
from magpie.geometry import Box
from magpie.vision.embedder import Embedder, unit
from magpie.vision.model_card import InputSpec, ModelCard
from magpie.vision.onnx_session import OnnxSession, Tensor
from magpie.vision.preprocess import Letterbox, Pixels, crops, to_tensor

PIXELS = 1  # of 255: Pillow's fixed-point resize may round either way between its releases
COSINE = 0.98  # of an embedder's vector with the released one, at least
SCORE = 0.1  # of a detector's scores, less than
BOX = 0.05  # of the boxes that are SURE, less than
SURE = 0.3  # score

Golden = Mapping[str, NDArray[Any]]


def golden_of(card: ModelCard, folder: Path) -> Golden:
    """The golden arrays of a model. Raises FailedPrecondition if there are none."""
    path = folder / f"{Path(card.file).stem}.golden.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            golden = dict(arrays)
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"golden tensors {path}: {error}: export the model again") from error
    missing = {"squares", "image_0", *(output.name for output in card.outputs)} - set(golden)
    if missing:
        raise FailedPrecondition(f"golden tensors {path} lack {', '.join(sorted(missing))}")
    return golden


def images(golden: Golden) -> list[Pixels]:
    """The drawn pictures, (H, W, 3) each."""
    return [golden[f"image_{row}"] for row in range(len(golden["squares"]))]


def embedder_squares(golden: Golden, spec: InputSpec) -> Pixels:
    """One object of each picture, cut as serving does: (N, size, size, 3)."""
    boxes = [Box(*map(float, row)) for row in golden["boxes"]]
    return np.concatenate(
        [crops(image, [box], spec) for image, box in zip(images(golden), boxes, strict=True)]
    )


def detector_squares(golden: Golden, spec: InputSpec) -> Pixels:
    """Whole pictures, letterboxed as serving does: (N, size, size, 3)."""
    letterbox = Letterbox(spec.size, spec.fill)
    return np.stack([letterbox(Image.fromarray(image)) for image in images(golden)])


def cosines(card: ModelCard, folder: Path, golden: Golden, squares: Pixels) -> dict[str, Tensor]:
    """By space, the cosine of every vector of today with every released one: (N, N)."""
    vectors = Embedder(card, folder, threads=1).embed(squares)
    return {space: found @ unit(golden[space]).T for space, found in vectors.items()}


def detector_outputs(card: ModelCard, folder: Path, squares: Pixels) -> tuple[Tensor, Tensor]:
    """Raw boxes (N, A, 4) and scores (N, A, C), one picture at a time as serving runs it."""
    session = OnnxSession(card, folder, threads=1)
    rows = [session.run(to_tensor(square[None], card.input)) for square in squares]
    return np.concatenate([r["boxes"] for r in rows]), np.concatenate([r["scores"] for r in rows])


def embedder_faults(card: ModelCard, folder: Path) -> list[str]:
    """What is not as it was, in words; empty if all is. Raises FailedPrecondition if it cannot be run."""
    golden = golden_of(card, folder)
    squares = embedder_squares(golden, card.input)
    faults = _square_faults(card, squares, golden)
    for space, matrix in cosines(card, folder, golden, squares).items():
        worst = float(matrix.diagonal().min())
        if not worst > COSINE:  # also catches NaN
            faults.append(
                f"{card.file}: a vector of space {space} has cosine {worst:.3f} with the exported one"
            )
        elif not np.array_equal(matrix.argmax(axis=1), np.arange(len(matrix))):
            faults.append(f"{card.file}: space {space} takes one golden picture for another")
    return faults


def detector_faults(card: ModelCard, folder: Path) -> list[str]:
    """As `embedder_faults`."""
    golden = golden_of(card, folder)
    squares = detector_squares(golden, card.input)
    faults = _square_faults(card, squares, golden)
    boxes, scores = detector_outputs(card, folder, squares)
    if scores.shape != golden["scores"].shape:
        return [*faults, f"{card.file}: scores are {scores.shape}, were {golden['scores'].shape} at export"]
    moved = float(np.abs(scores - golden["scores"]).max())
    if not moved < SCORE:
        faults.append(f"{card.file}: a score differs by {moved:.3f} from the exported one")
    sure = golden["scores"].max(axis=2) >= SURE
    shift = float(np.abs(boxes[sure] - golden["boxes"][sure]).max(initial=0.0))
    if not shift < BOX:
        faults.append(f"{card.file}: a box differs by {shift:.3f} of the side from the exported one")
    return faults


def _square_faults(card: ModelCard, squares: Pixels, golden: Golden) -> list[str]:
    if squares.shape != golden["squares"].shape:
        return [
            f"{card.file}: the golden squares are {golden['squares'].shape}, serving cuts {squares.shape}"
        ]
    difference = int(np.abs(squares.astype(int) - golden["squares"].astype(int)).max())
    if difference > PIXELS:
        return [f"{card.file}: serving's squares differ by {difference} of 255 from those at export"]
    return []
