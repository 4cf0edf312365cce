"""LEGO Minifigures (Isaienkov et al.; CC BY 4.0): few products, several views. Never trained on."""

from __future__ import annotations

from pathlib import Path

from training.datasets.example import Example, metadata_rows

SOURCE = "lego-minifig-108"


def read(data: Path) -> list[Example]:
    """All pictures: the set has no splits."""
    folder = data / SOURCE
    return [
        Example(
            path=folder / row["file"],
            source=SOURCE,
            department="Toys",
            category=row["category"],
            product=row["product_id"],
        )
        for row in metadata_rows(folder, ("file", "product_id", "category"))
    ]
