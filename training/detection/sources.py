"""The pictures that a recipe names, as pools: what is learnt, and what is kept to steer by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.errors import InvalidArgument
from magpie.vision.preprocess import Letterbox
from training.datasets import coco_boxes, voc_boxes
from training.datasets.box_findings import BoxFindings
from training.datasets.boxed_photo import BoxedPhoto
from training.datasets.catalogue_of_cards import DataEntry, examples_of
from training.datasets.composites import CompositeSource, photographed_cutouts, rendered_cutouts
from training.detection import photos
from training.detection.labelled_image import LabelledImage
from training.detection.photos import NOT_PRODUCTS
from training.detection.pool import Pool
from training.detection.recipe import BoxData, DetectionRecipe
from training.detection.teacher import Teacher
from training.recipe_file import nearest

LABELLED_BY_TEACHER = ("clothes", "groceries")  # kinds of photos without boxes


@dataclass(frozen=True)
class Pictures:
    """A pool for each entry of the recipe, and the annotated pictures that were kept back."""

    pools: tuple[Pool, ...]
    development: tuple[LabelledImage, ...]
    findings: Mapping[str, BoxFindings]  # data set -> what is not as it should be

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
            "findings": {name: found.counts for name, found in self.findings.items()},
        }


def read_pictures(recipe: DetectionRecipe, root: Path, teacher: Path | None, cache: Path) -> Pictures:
    """All of it; pools are kept in `cache` by what they are made of. Raises InvalidArgument or BadFile."""
    if not recipe.data:
        raise InvalidArgument(
            "data", "the recipe names no data: add [[data]] with data = FOLDER and its kind"
        )
    unlabelled = [entry.kind for entry in recipe.data if entry.kind in LABELLED_BY_TEACHER]
    if unlabelled and teacher is None:  # said at once: other data may take minutes to draw
        raise InvalidArgument(
            "teacher", f"`{unlabelled[0]}` pictures have no boxes: name a detector by --teacher"
        )
    letterbox = Letterbox(recipe.pool or recipe.model.size, recipe.model.input.fill)
    pools, development = [], []
    findings: dict[str, BoxFindings] = {}
    for entry in recipe.data:
        found = findings.setdefault(entry.title, BoxFindings())
        kept, learnt = _divided(entry, recipe, root, found)
        development += kept
        folder = cache / _digest(entry, recipe, teacher, learnt)
        pool = Pool.load(folder)
        if pool is None:
            images = learnt if learnt is not None else _made(entry, recipe, root, teacher)
            pool = Pool.build(tqdm(images, desc=f"{entry.title}: pictures", mininterval=2), letterbox)
            pool.save(folder)
        pools.append(pool)
    return Pictures(tuple(pools), tuple(development), findings)


def annotated(
    entry: BoxData, root: Path, taxonomy: Sequence[str], findings: BoxFindings | None = None
) -> list[LabelledImage]:
    """Photos with boxes that people drew; what is not as it should be goes into `findings`.

    Raises InvalidArgument for a category that the recipe does not place.
    """
    photos = read_boxes(entry, root, BoxFindings() if findings is None else findings)
    known = sorted({category for photo in photos for category in photo.categories})
    place = {category: _place(category, entry, taxonomy) for category in known}
    return [_labelled(photo, place) for photo in photos]


def guessed_format(path: Path) -> Literal["coco", "voc"]:
    """What a path has boxes in: VOC for a folder with XML files and no annotations.json, else COCO."""
    xml = path.is_dir() and not (path / coco_boxes.FILE).is_file() and any(path.rglob("*.xml"))
    return "voc" if xml else "coco"


def read_boxes(entry: BoxData, root: Path, findings: BoxFindings) -> list[BoxedPhoto]:
    """The photos of an entry's splits, as if what it does not name in `only` had not been annotated."""
    reader = voc_boxes if entry.kind == "voc" else coco_boxes
    photos = reader.read(root / entry.data, findings)
    return [_only(photo, entry.only) for photo in photos if not entry.splits or photo.split in entry.splits]


def _only(photo: BoxedPhoto, categories: Sequence[str]) -> BoxedPhoto:
    if not categories:
        return photo
    named = [category in categories for category in photo.categories]
    kept = tuple(category for category, one in zip(photo.categories, named, strict=True) if one)
    return replace(photo, boxes=photo.boxes[np.array(named, bool)], categories=kept)


def _labelled(photo: BoxedPhoto, place: dict[str, int | None]) -> LabelledImage:
    places = [place[category] for category in photo.categories]
    judged = np.array([one is not None for one in places], bool)
    labels = np.array([one for one in places if one is not None], np.int64)
    ignored = np.array(photo.ignored, np.float32).reshape(-1, 4)
    return LabelledImage(photo, photo.boxes[judged], np.concatenate([photo.boxes[~judged], ignored]), labels)


def _place(category: str, entry: BoxData, taxonomy: Sequence[str]) -> int | None:
    """The class of a category; None: it is ignored."""
    if category in entry.ignored or (entry.not_products and category in NOT_PRODUCTS):
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
    entry: BoxData, recipe: DetectionRecipe, root: Path, findings: BoxFindings
) -> tuple[list[LabelledImage], list[LabelledImage] | None]:
    """Kept to steer by, and learnt; None: pictures that are made or labelled by code keep none back."""
    if entry.kind not in ("coco", "voc"):
        return [], None
    images = annotated(entry, root, recipe.taxonomy, findings)
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
    assert teacher is not None
    label = photos.clothes if entry.kind == "clothes" else photos.groceries
    return label(root, Teacher(teacher))


def _composites(entry: BoxData, recipe: DetectionRecipe, root: Path) -> Iterator[LabelledImage]:
    """Products of the grocery catalogue and drawn ones, on parts of training photos."""

    def paths(name: str, split: str) -> list[Path]:
        return [example.path for example in examples_of(DataEntry(name, splits=(split,)), root)]

    boxed = [
        photo
        for data, split in (("coco-open-det", "train2017"), ("playing-cards-det", "train"))
        for photo in read_boxes(BoxData(data, splits=(split,)), root, BoxFindings())
    ]
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


def _digest(
    entry: BoxData, recipe: DetectionRecipe, teacher: Path | None, learnt: Sequence[LabelledImage] | None
) -> str:
    """Names a pool by all that it depends on, but for how often it is drawn from."""
    boxes = hashlib.sha256()  # boxes that were mended, or other photos, make another pool
    for image in learnt or ():
        if isinstance(image.source, BoxedPhoto):
            boxes.update(f"{image.source.name} {image.source.path.stat().st_size}".encode())
        for array in (image.boxes, image.labels, image.ignored):
            boxes.update(array.tobytes())
    labelled = entry.kind in LABELLED_BY_TEACHER and teacher is not None
    facts = {
        "entry": {**asdict(entry), "share": 1.0},
        "size": recipe.pool or recipe.model.size,
        "taxonomy": recipe.taxonomy,
        "seed": recipe.seed,
        "development": recipe.development,
        "boxes": boxes.hexdigest(),
        "teacher": hashlib.sha256(teacher.read_bytes()).hexdigest() if labelled and teacher else "",
    }
    return f"{entry.title}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]}"
