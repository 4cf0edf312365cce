"""A shop of three products and a wardrobe, small enough to train on in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

PRODUCTS = {"Gala": "Apple", "Fuji": "Apple", "Leek": "Leek"}
COLOURS = {"Gala": (200, 40, 40), "Fuji": (230, 120, 90), "Leek": (60, 160, 70)}
RECIPE = """
taxonomy = ["department", "category"]
domains = ["category"]
seed = 3
workers = 0
[[data]]
data = "shop.csv"
[[data]]
data = "wardrobe.csv"
[development]
share = 0.0
allow_near_duplicates = true
[model]
size = 32
[batch]
products = 2
photos = 2
lone = 2
sizes = [32]
steps = 3
[schedule]
epochs = 3
warmup = 2
[hard_negatives]
every = 1
"""


def picture(path: Path, colour: tuple[int, int, int], seed: int) -> str:
    """A disc of the colour on a ground of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (40, 30, 3), np.uint8)
    y, x = np.mgrid[0:40, 0:30]
    pixels[(y - 20) ** 2 + (x - 15) ** 2 < rng.integers(60, 140)] = colour
    Image.fromarray(pixels).save(path)
    return path.name


def make(folder: Path) -> Path:
    """Write shop.csv (three photos and a catalogue picture a product), wardrobe.csv, recipe.toml."""
    rows = ["image,product_id,kind,category,department"]
    for number, (product, category) in enumerate(PRODUCTS.items()):
        department = "Fruit" if category == "Apple" else "Vegetables"
        for n in range(4):
            kind = "catalogue" if n == 3 else "photo"
            name = picture(folder / f"{product}-{n}.png", COLOURS[product], 10 * number + n)
            rows.append(f"{name},{product},{kind},{category},{department}")
    (folder / "shop.csv").write_text("\n".join(rows) + "\n")
    rows = ["image,kind,category,source"]
    for n, category in enumerate(["hat", "hat", "hat", "skirt", "skirt", ""]):
        name = picture(folder / f"wear-{n}.png", (30 * n, 90, 200 - 30 * n), 200 + n)
        rows.append(f"{name},photo,{category},s{n}")
    (folder / "wardrobe.csv").write_text("\n".join(rows) + "\n")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder
