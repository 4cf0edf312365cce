"""A few drawn photos with boxes: a data set in COCO's form, and targets made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.detection.contract import Targets

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
NO_BOXES = torch.empty(0, 4)
NO_LABELS = torch.empty(0, dtype=torch.long)


def write_coco(folder: Path, photos: int = 8, side: int = 96) -> None:
    """Each photo has one or two plain rectangles on a grey ground; the category is the colour."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = list(COLOURS)
    images, annotations = [], []
    for photo in range(photos):
        pixels = rng.integers(118, 122, (side, side, 3)).astype(np.uint8)
        for half in range(1 + photo % 2):  # the second lies to the right of the first
            category = int(rng.integers(len(names)))
            width, height = rng.integers(24, 40, 2)
            x = int(rng.integers(2, side // 2 - width)) + half * side // 2
            y = int(rng.integers(2, side - height - 2))
            pixels[y : y + height, x : x + width] = COLOURS[names[category]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": photo,
                    "category_id": category + 1,
                    "bbox": [x, y, int(width), int(height)],
                }
            )
        Image.fromarray(pixels).save(folder / f"{photo}.png")
        images.append(
            {"id": photo, "file_name": f"{photo}.png", "width": side, "height": side, "split": "train"}
        )
    categories = [{"id": place + 1, "name": name} for place, name in enumerate(names)]
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


def random_boxes(count: int, generator: torch.Generator, least: float = 0.1) -> torch.Tensor:
    """(count, 4), inside the square, no side below `least`."""
    sides = least + torch.rand(count, 2, generator=generator) * (0.6 - least)
    corner = torch.rand(count, 2, generator=generator) * (1 - sides)
    return torch.cat([corner, corner + sides], dim=1)


def two_pictures(size: int = 96) -> tuple[torch.Tensor, tuple[Targets, ...]]:
    """Noise with bright rectangles where the boxes are: (2, 3, size, size) and what is in them."""
    generator = torch.Generator().manual_seed(0)
    boxes = [
        torch.tensor([[0.1, 0.1, 0.55, 0.6], [0.5, 0.65, 0.95, 0.95]]),
        torch.tensor([[0.3, 0.2, 0.8, 0.7]]),
    ]
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    pictures = torch.rand(2, 3, size, size, generator=generator) - 0.5
    for row, (of_one, kinds) in enumerate(zip(boxes, labels, strict=True)):
        for box, kind in zip((of_one * size).int().tolist(), kinds.tolist(), strict=True):
            pictures[row, kind, box[1] : box[3], box[0] : box[2]] += 1.0
    targets = tuple(
        Targets(of_one, kinds, NO_BOXES, random_boxes(40, generator))
        for of_one, kinds in zip(boxes, labels, strict=True)
    )
    return pictures, targets
