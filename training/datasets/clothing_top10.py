"""Clothing data set (Alexey Grigorev and contributors; CC0), ten categories: home photos, no products."""

from __future__ import annotations

from pathlib import Path

from training.datasets.example import Example, metadata_rows

SOURCE = "clothing-top10"


def read(data: Path, split: str) -> list[Example]:
    """Splits: `train`, `val`, `test`."""
    folder = data / SOURCE
    return [
        Example(
            path=folder / row["file"],
            source=SOURCE,
            department="Clothing",
            category=row["category"],
            sender=row["sender_id"],
        )
        for row in metadata_rows(folder, ("file", "split", "category", "sender_id"))
        if row["split"] == split
    ]
