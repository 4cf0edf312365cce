"""Training pictures, letterboxed once and read by row; on disk, so that a resumed run finds the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magpie.geometry import Boxes
from magpie.vision.preprocess import Letterbox, Pixels
from training.detection.labelled_image import LabelledImage, Labels


@dataclass(frozen=True)
class Scene:
    """One square picture (S, S, 3) uint8 and what is in it, as fractions of the square."""

    pixels: Pixels
    boxes: Boxes  # (N, 4)
    labels: Labels  # (N,)
    ignored: Boxes  # (M, 4)


@dataclass(frozen=True)
class Pool:
    """`pixels` (N, size, size, 3) uint8; boxes, labels and ignored regions of each."""

    pixels: Pixels
    boxes: tuple[Boxes, ...]
    labels: tuple[Labels, ...]
    ignored: tuple[Boxes, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> Scene:
        return Scene(self.pixels[row], self.boxes[row], self.labels[row], self.ignored[row])

    @classmethod
    def build(cls, images: Iterable[LabelledImage], letterbox: Letterbox) -> Pool:
        """Raises ValueError if there are none."""
        pixels, boxes, labels, ignored = [], [], [], []
        for labelled in images:
            image = labelled.image
            place = letterbox.placement(image.width, image.height)
            pixels.append(letterbox(image))
            boxes.append(place.to_square(labelled.boxes))
            labels.append(labelled.labels)
            ignored.append(place.to_square(labelled.ignored))
        return cls(np.stack(pixels), tuple(boxes), tuple(labels), tuple(ignored))

    def save(self, folder: Path) -> None:
        """Write the pool; `boxes.npz` comes last, so a folder that has it is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "pixels.npy", self.pixels)
        np.savez(
            folder / "boxes.partial.npz",
            boxes=np.concatenate(self.boxes),
            labels=np.concatenate(self.labels),
            boxes_of=_counts(self.boxes),
            ignored=np.concatenate(self.ignored),
            ignored_of=_counts(self.ignored),
        )
        (folder / "boxes.partial.npz").replace(folder / "boxes.npz")

    @classmethod
    def load(cls, folder: Path) -> Pool | None:
        """The saved pool, its pixels mapped from disk; None if none was saved."""
        if not (folder / "boxes.npz").exists():
            return None
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        with np.load(folder / "boxes.npz") as saved:
            ends = np.cumsum(saved["boxes_of"])[:-1]
            boxes, labels = np.split(saved["boxes"], ends), np.split(saved["labels"], ends)
            ignored = np.split(saved["ignored"], np.cumsum(saved["ignored_of"])[:-1])
        return cls(pixels, tuple(boxes), tuple(labels), tuple(ignored))


def _counts(rows: Sequence[Boxes]) -> NDArray[np.int64]:
    return np.array([len(row) for row in rows])
