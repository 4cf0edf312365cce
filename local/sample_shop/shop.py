"""Writes a sample shop: catalogue.csv and its pictures, queries.csv and its photos, photos of whole tables.

Catalogue pictures show the cut-out on white. Query photos show it in a scene with perspective, shadow, uneven
light, blur, noise and JPEG, on a ground drawn by code. Prices, stock and brands are made up.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from local.sample_shop.ware import Ware
from magpie.synthesis.shop_pictures import SUBJECT, TABLE, packshot, photo

BRANDS = ("Corvina", "Nest & Co", "Pica", "Hedgerow", "Silverbeak")
PRICES = {  # category -> range; others take the last
    "Fruit": (0.3, 4),
    "Vegetables": (0.3, 4),
    "Nuts": (1, 8),
    "Food": (1, 6),
    "Mushrooms": (2, 9),
    "Flowers": (2, 15),
    "Music": (60, 1500),
    "Optics": (80, 900),
    "Tools": (5, 80),
    "": (4, 60),
}


@dataclass(frozen=True)
class Shop:
    """The files of a sample shop."""

    catalogue: Path
    queries: Path
    tables: tuple[Path, ...]  # photos of several products each
    products: int
    photos: int


def write(wares: Sequence[Ware], out: Path, seed: int, photos: int = 30, tables: int = 3) -> Shop:
    """Write the shop to `out`, the same for the same wares and seed."""
    for folder in ("catalogue", "queries", "tables"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    with (out / "catalogue.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["product_id", "image", "title", "category", "price", "stock", "group", "brand"])
        for ware in wares:
            image = f"catalogue/{ware.product_id}.jpg"
            packshot(ware.cutout).save(out / image, quality=92)
            price, stock, brand = terms_of_sale(ware, seed)
            rows.writerow(
                [ware.product_id, image, ware.title, ware.category, f"{price:.2f}", stock, ware.group, brand]
            )

    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(wares), size=min(photos, len(wares)), replace=False)
    with (out / "queries.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "product_id"])
        for index in sorted(int(i) for i in chosen):
            image = f"queries/{wares[index].product_id}.jpg"
            photo(rng, [wares[index].cutout], SUBJECT).save(out / image, quality=90)
            rows.writerow([image, wares[index].product_id])

    table_photos = []
    for number in range(tables):
        shown = [wares[int(i)].cutout for i in rng.choice(len(wares), size=3, replace=False)]
        table_photos.append(out / "tables" / f"table-{number + 1}.jpg")
        photo(rng, shown, TABLE).save(table_photos[-1], quality=90)
    return Shop(out / "catalogue.csv", out / "queries.csv", tuple(table_photos), len(wares), len(chosen))


def terms_of_sale(ware: Ware, seed: int) -> tuple[float, int, str]:
    """Price, stock and brand: made up, the same for one product whatever else is in the shop."""
    rng = np.random.default_rng([seed, zlib.crc32((ware.group or ware.product_id).encode())])
    low, high = PRICES.get(ware.category, PRICES[""])
    price = round(float(np.exp(rng.uniform(np.log(low), np.log(high)))), 1) - 0.01
    stock = 0 if rng.random() < 0.1 else int(rng.integers(1, 80))
    return max(price, 0.09), stock, BRANDS[int(rng.integers(len(BRANDS)))]
