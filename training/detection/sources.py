"""The pictures that a recipe names, as pools: what is learnt, and what is kept to steer by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.errors import InvalidArgument
from magpie.vision.preprocess import Letterbox
from training.datasets import coco_boxes
from training.datasets.catalogue_of_cards import DataEntry, examples_of
from training.datasets.composites import CompositeSource, photographed_cutouts, rendered_cutouts
from training.detection import photos
from training.detection.labelled_image import LabelledImage
from training.detection.pool import Pool
from training.detection.recipe import BoxData, DetectionRecipe
from training.detection.teacher import Teacher
from training.recipe_file import nearest


@dataclass(frozen=True)
class Pictures:
    """A pool for each entry of the recipe, and the annotated pictures that were kept back."""

    pools: tuple[Pool, ...]
    development: tuple[LabelledImage, ...]

    def summary(self, recipe: DetectionRecipe) -> dict[str, object]:
        """For the run folder and the model card."""
        return {
            "train": [
                {
                    "data": entry.title,
                    "kind": entry.kind,
                    "pictures": len(pool),
                    "boxes": sum(map(len, pool.boxes)),
                }
                for entry, pool in zip(recipe.data, self.pools, strict=True)
            ],
            "development": len(self.development),
        }


def read_pictures(recipe: DetectionRecipe, root: Path, teacher: Path | None, cache: Path) -> Pictures:
    """All of it; pools are kept in `cache` by what they are made of. Raises InvalidArgument or BadFile."""
    if not recipe.data:
        raise InvalidArgument(
            "data", "the recipe names no data: add [[data]] with data = FOLDER and its kind"
        )
    letterbox = Letterbox(recipe.pool or recipe.model.size, recipe.model.input.fill)
    pools, development = [], []
    for entry in recipe.data:
        kept, learnt = _divided(entry, recipe, root)
        development += kept
        folder = cache / _digest(entry, recipe, teacher)
        pool = Pool.load(folder)
        if pool is None:
            images = learnt if learnt is not None else _made(entry, recipe, root, teacher)
            pool = Pool.build(tqdm(images, desc=f"{entry.title}: pictures", mininterval=2), letterbox)
            pool.save(folder)
        pools.append(pool)
    return Pictures(tuple(pools), tuple(development))


def annotated(entry: BoxData, root: Path, taxonomy: Sequence[str]) -> list[LabelledImage]:
    """Photos with boxes that people drew.

    Raises InvalidArgument for a category that the recipe does not place.
    """
    found = coco_boxes.read(root / entry.data)
    known = {category for photo in found for category in photo.categories}
    place = {category: _place(category, entry, taxonomy) for category in sorted(known)}
    return [_labelled(photo, place) for photo in found if not entry.splits or photo.split in entry.splits]


def _labelled(photo: coco_boxes.BoxedPhoto, place: dict[str, int | None]) -> LabelledImage:
    places = [place[category] for category in photo.categories]
    judged = np.array([one is not None for one in places], bool)
    labels = np.array([one for one in places if one is not None], np.int64)
    return LabelledImage(photo.load(), photo.boxes[judged], photo.boxes[~judged], labels)


def _place(category: str, entry: BoxData, taxonomy: Sequence[str]) -> int | None:
    """The class of a category; None: it is ignored."""
    if category in entry.ignored or (entry.not_products and category in photos.NOT_PRODUCTS):
        return None
    name = entry.classes.get(category, taxonomy[0] if len(taxonomy) == 1 else category)
    if name not in taxonomy:
        raise InvalidArgument(
            "taxonomy",
            f"{entry.title} has boxes of `{category}`{nearest(name, list(taxonomy))}; "
            "map it in `classes`, or name it in `ignored`",
        )
    return list(taxonomy).index(name)


def _divided(
    entry: BoxData, recipe: DetectionRecipe, root: Path
) -> tuple[list[LabelledImage], list[LabelledImage] | None]:
    """Kept to steer by, and learnt; None: pictures that are made or labelled by code keep none back."""
    if entry.kind not in ("coco", "voc"):
        return [], None
    images = annotated(entry, root, recipe.taxonomy)
    if not images:
        raise InvalidArgument("data", f"{entry.data} has no picture of the splits {', '.join(entry.splits)}")
    order = np.random.default_rng(recipe.seed).permutation(len(images))
    count = round(recipe.development * len(images))
    return [images[row] for row in order[:count]], [images[row] for row in order[count:]]


def _made(
    entry: BoxData, recipe: DetectionRecipe, root: Path, teacher: Path | None
) -> Iterable[LabelledImage]:
    if entry.kind == "composites":
        return _composites(entry, recipe, root)
    if teacher is None:
        raise InvalidArgument(
            "teacher", f"`{entry.kind}` pictures have no boxes: name a detector by --teacher"
        )
    label = photos.clothes if entry.kind == "clothes" else photos.groceries
    return label(root, Teacher(teacher))


def _composites(entry: BoxData, recipe: DetectionRecipe, root: Path) -> Iterator[LabelledImage]:
    """Products of the grocery catalogue and drawn ones, on parts of training photos."""

    def paths(name: str, split: str) -> list[Path]:
        return [example.path for example in examples_of(DataEntry(name, splits=(split,)), root)]

    boxed = (
        *coco_boxes.read(root / "coco-open-det", "train2017"),
        *coco_boxes.read(root / "playing-cards-det", "train"),
    )
    source = CompositeSource(
        photographed_cutouts(paths("grocery-store", "gallery")),
        rendered_cutouts(entry.rendered),
        [
            *paths("grocery-store", "train"),
            *paths("clothing-top10", "train")[::4],
            *(photo.path for photo in boxed),
        ],
    )
    for scene in range(entry.scenes):
        yield source.draw(np.random.default_rng([recipe.seed, scene]))


def _digest(entry: BoxData, recipe: DetectionRecipe, teacher: Path | None) -> str:
    """Names a pool by all that it depends on, but for how often it is drawn from."""
    labelled = entry.kind in ("clothes", "groceries") and teacher is not None
    facts = {
        "entry": {**asdict(entry), "share": 1.0},
        "size": recipe.pool or recipe.model.size,
        "taxonomy": recipe.taxonomy,
        "seed": recipe.seed,
        "development": recipe.development,
        "teacher": hashlib.sha256(teacher.read_bytes()).hexdigest() if labelled and teacher else "",
    }
    return f"{entry.title}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]}"
