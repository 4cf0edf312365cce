"""Grocery Store Dataset (Klasson et al., WACV 2019; MIT): phone photos and catalogue pictures."""

from __future__ import annotations

from pathlib import Path

from training.datasets.example import Example, metadata_rows

SOURCE = "grocery-store"


def read(data: Path, split: str) -> list[Example]:
    """Splits: `train` and `val` are photos from shops, `gallery` is one catalogue picture of each product."""
    folder = data / SOURCE
    columns = ("file", "split", "kind", "product", "department", "category")
    return [
        Example(
            path=folder / row["file"],
            source=SOURCE,
            department=row["department"],
            category=row["category"],
            product=row["product"],
            catalogue=row["kind"] == "iconic",
        )
        for row in metadata_rows(folder, columns)
        if row["split"] == split
    ]
