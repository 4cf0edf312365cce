"""Scenes for the detector: cut-out products over real and drawn grounds, with exact boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from magpie.geometry import Boxes
from magpie.synthesis.backgrounds import background, part_of_photo
from magpie.synthesis.cutout import cut_from_white
from magpie.synthesis.products import TRAINING_FAMILIES, render
from magpie.synthesis.scene import PlacedObject, SceneStyle, compose
from training.detection.labelled_image import LabelledImage

LONGER_SIDE = 320  # px of a scene
CLEAR = 0.4  # visible share from which an object must be found; below it the detector is not judged
ALONE = SceneStyle(extent=(0.5, 1.05), rotation=30)
AMONG_OTHERS = SceneStyle(extent=(0.12, 0.6), rotation=30)


@dataclass(frozen=True)
class CompositeSource:
    """What scenes are made of. Each list of cut-outs gives half of the objects."""

    photographed: Sequence[Image.Image]  # RGBA, cut from catalogue pictures
    rendered: Sequence[Image.Image]  # RGBA
    grounds: Sequence[Path]  # photos, of which a part becomes the ground of every other scene

    def draw(self, rng: np.random.Generator) -> LabelledImage:
        """One scene of one to five products."""
        named = self.draw_named(rng)
        return LabelledImage.of_products(named.image, named.boxes, named.ignored)

    def draw_named(self, rng: np.random.Generator) -> LabelledImage:
        """The same scene; labels are places in `photographed`, counted on in `rendered`."""
        alone = rng.random() < 0.4
        count = 1 if alone else int(rng.integers(1, 6))
        ground = self._ground(rng)
        chosen = [self._choice(rng) for _ in range(count)]
        cutouts = [*self.photographed, *self.rendered]
        scene = compose(rng, [cutouts[place] for place in chosen], ground, ALONE if alone else AMONG_OTHERS)
        clear = [placed for placed in scene.objects if placed.visible >= CLEAR]
        hidden = [placed for placed in scene.objects if placed.visible < CLEAR]
        labels = np.array([chosen[placed.source] for placed in clear], np.int64)
        return LabelledImage(scene.image, _boxes(clear), _boxes(hidden), labels)

    def _choice(self, rng: np.random.Generator) -> int:
        if self.photographed and rng.random() < 0.5:
            return int(rng.integers(len(self.photographed)))
        return len(self.photographed) + int(rng.integers(len(self.rendered)))

    def _ground(self, rng: np.random.Generator) -> Image.Image:
        short = int(rng.integers(round(LONGER_SIDE * 0.7), LONGER_SIDE + 1))
        size = (LONGER_SIDE, short) if rng.random() < 0.5 else (short, LONGER_SIDE)
        if not self.grounds or rng.random() < 0.4:
            return background(rng, *size)
        with Image.open(self.grounds[int(rng.integers(len(self.grounds)))]) as photo:
            return part_of_photo(rng, photo, *size)


def rendered_cutouts(
    count: int, families: Sequence[str] = TRAINING_FAMILIES, size: int = 224
) -> list[Image.Image]:
    """`count` products of the families in turn, cropped to what can be seen."""
    products = (render(families[i % len(families)], i, size) for i in range(count))
    return [product.crop(product.getchannel("A").getbbox()) for product in products]


def photographed_cutouts(paths: Sequence[Path]) -> list[Image.Image]:
    """Products cut from pictures on white; pictures on other grounds are left out."""
    cutouts = []
    for path in paths:
        with Image.open(path) as image:
            cutout = cut_from_white(image)
        if cutout is not None:
            cutouts.append(cutout)
    return cutouts


def _boxes(objects: Sequence[PlacedObject]) -> Boxes:
    return np.array([placed.box for placed in objects], np.float32).reshape(-1, 4)
