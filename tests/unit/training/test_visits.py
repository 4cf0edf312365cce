"""Visits guessed from colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from training.datasets.development import split_development
from training.datasets.example import Example
from training.datasets.measured_picture import Measured, measure_all
from training.datasets.visits import PHOTOS, VISITS, visits

LIGHTS = [(200, 60, 50), (60, 170, 70), (50, 80, 190), (200, 190, 70), (90, 90, 90)]


def photos(folder: Path, lights: int, each: int) -> tuple[list[Example], dict[Path, Measured]]:
    """`each` photos of one product in each light, with noise of their own."""
    rng = np.random.default_rng(1)
    examples = []
    for row in range(lights * each):
        light = LIGHTS[row % lights]  # the names say nothing of the visit
        pixels = np.clip(rng.normal(light, 12, (40, 40, 3)), 0, 255).astype(np.uint8)
        path = folder / f"{row:02}.png"
        Image.fromarray(pixels).save(path)
        examples.append(Example(path, "shop", "tea", {"category": "tea"}))
    return examples, measure_all(example.path for example in examples)[0]


def test_photos_in_one_light_are_one_visit(tmp_path: Path) -> None:
    examples, measured = photos(tmp_path, lights=VISITS, each=PHOTOS)
    named = visits(examples, measured)
    groups = {
        frozenset(int(p.stem) % VISITS for p, v in named.items() if v == name) for name in named.values()
    }
    assert groups == {frozenset({light}) for light in range(VISITS)}
    assert named == visits(list(reversed(examples)), measured)


def test_who_names_a_source_or_is_a_catalogue_picture_is_left_alone(tmp_path: Path) -> None:
    examples, measured = photos(tmp_path, lights=2, each=8)
    told = [Example(e.path, e.dataset, e.product, e.labels, source="anna") for e in examples[:4]]
    shop = [Example(e.path, e.dataset, e.product, e.labels, catalogue=True) for e in examples[4:6]]
    named = visits([*told, *shop, *examples[6:]], measured)
    assert set(named) == {e.path for e in examples[6:]}
    few = examples[: 2 * PHOTOS - 1]
    assert visits(few, measured) == {}


def test_a_development_split_holds_whole_visits(tmp_path: Path) -> None:
    examples, measured = photos(tmp_path, lights=5, each=4)
    named = visits(examples, measured)
    sizes = set()
    for seed in range(8):
        _, dev = split_development(examples, 0.2, seed, visits=named)
        for visit in {named[e.path] for e in dev}:
            assert {p for p, v in named.items() if v == visit} <= {e.path for e in dev}
        sizes.add(len(dev))
    assert sizes == {4}
