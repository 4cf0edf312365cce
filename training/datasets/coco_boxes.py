"""Photos with boxes, in COCO's JSON form: `FOLDER/annotations.json` with a split on every image."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from magpie.errors import InvalidArgument
from magpie.geometry import Boxes


@dataclass(frozen=True)
class BoxedPhoto:
    """A photo and what is in it: boxes as fractions, with a category each."""

    path: Path
    boxes: Boxes  # (N, 4)
    categories: tuple[str, ...]  # N
    split: str = ""

    def load(self) -> Image.Image:
        """RGB. The boxes belong to the pixels as stored, so no EXIF rotation is applied."""
        with Image.open(self.path) as image:
            return image.convert("RGB")


def read(folder: Path, split: str | None = None) -> list[BoxedPhoto]:
    """The photos of one split, or all. Raises InvalidArgument if the file is missing."""
    path = folder / "annotations.json"
    if not path.is_file():
        raise InvalidArgument("data", f"{path} is missing; --data names the folder that holds the data sets")
    content = json.loads(path.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = defaultdict(list)
    for annotation in content["annotations"]:
        found[annotation["image_id"]].append(annotation)
    photos = []
    for image in content["images"]:
        if split is None or image["split"] == split:
            sides = np.array([image["width"], image["height"]] * 2, np.float32)
            corners = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in found[image["id"]])]
            boxes = np.array(corners, np.float32).reshape(-1, 4) / sides
            categories = tuple(names[annotation["category_id"]] for annotation in found[image["id"]])
            photos.append(
                BoxedPhoto(
                    folder / image["file_name"], np.clip(boxes, 0.0, 1.0), categories, image.get("split", "")
                )
            )
    return photos
