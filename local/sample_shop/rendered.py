"""Products drawn by code, for machines without apt. No model has seen their families in training."""

from __future__ import annotations

from local.sample_shop.ware import Ware
from magpie.synthesis.products import SHOP_FAMILIES, render

CATEGORIES = {
    "can": "Food",
    "mug": "Dishes",
    "shirt": "Clothes",
    "lamp": "Household",
    "backpack": "Bags",
    "camera": "Optics",
}
MODELS = 9  # of each family
VARIANTS = 2  # every third model comes in as many colours


def wares(seed: int, size: int = 400) -> list[Ware]:
    """Every model of every family: the same wares for the same seed. `size` is the side in px."""
    found = []
    for family in SHOP_FAMILIES:
        for model in range(MODELS):
            variants = VARIANTS if model % 3 == 0 else 1
            for variant in range(variants):
                picture = render(family, seed * 1000 + model, size, variant)
                name = f"{family}-{model + 1:02d}"
                found.append(
                    Ware(
                        product_id=f"{name}{'abcdef'[variant]}" if variants > 1 else name,
                        title=f"{family.capitalize()} No. {model + 1}"
                        + (f", colour {variant + 1}" if variants > 1 else ""),
                        category=CATEGORIES[family],
                        cutout=picture.crop(picture.getchannel("A").getbbox()),
                        group=name if variants > 1 else "",
                    )
                )
    return found
