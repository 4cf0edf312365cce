"""One picture with what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from magpie.errors import InvalidArgument, UndecodableImage
from magpie.vision.decode import decode


@dataclass(frozen=True)
class Example:
    """A picture on disk. Labels are names, unique within `dataset`; what is not known is None or absent."""

    path: Path
    dataset: str
    product: str | None = None
    labels: Mapping[str, str] = field(
        default_factory=dict
    )  # column -> value: category, department, brand ...
    catalogue: bool = False  # the shop's own picture, not a photo that somebody took
    source: str | None = None  # who took it
    split: str = ""

    @property
    def product_name(self) -> str | None:
        """The product's name, unique among all data sets: `grocery-store/Apple`. None where nobody knows."""
        return None if self.product is None else f"{self.dataset}/{self.product}"

    def load(self, working_size: int = 512) -> Image.Image:
        """The upright picture, RGB, as serving decodes it. Raises InvalidArgument naming the file."""
        try:
            return Image.fromarray(np.ascontiguousarray(decode(self.path.read_bytes(), working_size).pixels))
        except (OSError, UndecodableImage) as error:
            raise InvalidArgument(str(self.path), f"cannot be read: {error}") from error
