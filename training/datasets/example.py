"""One picture with what is known of it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from magpie.errors import InvalidArgument


@dataclass(frozen=True)
class Example:
    """A picture on disk. Labels are names, unique within `source`; an unknown product is None."""

    path: Path
    source: str  # the data set
    department: str  # the coarsest label: department > category > product
    category: str
    product: str | None = None
    catalogue: bool = False  # the shop's own picture, not a photo that somebody took
    sender: str | None = None  # who took it

    def load(self) -> Image.Image:
        """The upright picture, RGB."""
        with Image.open(self.path) as image:
            return image.convert("RGB")


def metadata_rows(folder: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows of `folder`/metadata.csv. Raises InvalidArgument if it, a column or a picture is missing."""
    path = folder / "metadata.csv"
    if not path.is_file():
        raise InvalidArgument("data", f"{path} is missing; --data names the folder that holds the data sets")
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        missing = [column for column in columns if column not in (rows.fieldnames or ())]
        if missing:
            raise InvalidArgument("data", f"{path} lacks the columns {', '.join(missing)}")
        for line, row in enumerate(rows, start=2):
            if not (folder / row["file"]).is_file():
                raise InvalidArgument("data", f"{path} line {line}: {folder / row['file']} is missing")
            yield row
