"""The photos with boxes that a command line names, `PATH[:SPLIT,...]`, and drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from magpie.errors import InvalidArgument
from training.detection.labelled_image import LabelledImage
from training.detection.measure import drawn_scenes
from training.detection.recipe import BoxData, DetectionRecipe
from training.detection.sources import annotated, guessed_format


@dataclass(frozen=True)
class LabelledSet:
    """Photos, and the taxonomy that their labels are places in."""

    name: str
    images: Sequence[LabelledImage]
    taxonomy: tuple[str, ...]

    @property
    def boxes(self) -> int:
        """Things to find."""
        return sum(len(image.boxes) for image in self.images)


def entry_of(
    text: str,
    *,
    not_products: bool = False,
    ignored: Sequence[str] = (),
    recipe: DetectionRecipe | None = None,
) -> BoxData:
    """`PATH[:SPLIT,...]` -> the data. What a run's recipe says of the classes of the same PATH holds too.

    What the run was not shown (`only`) is there to be found all the same.
    """
    path, _, splits = text.partition(":")
    known = next((entry for entry in recipe.data if entry.data == path), None) if recipe else None
    entry = known or BoxData(path)
    return replace(
        entry,
        splits=tuple(split for split in splits.split(",") if split),
        only=(),
        not_products=entry.not_products or not_products,
        ignored=(*entry.ignored, *ignored),
    )


def read_set(entry: BoxData, root: Path, taxonomy: tuple[str, ...]) -> LabelledSet:
    """Raises InvalidArgument if there is no such photo, or a category that the taxonomy has no place for."""
    if entry.kind == "coco":
        entry = replace(entry, kind=guessed_format(root / entry.data))
    if len(taxonomy) == 1:
        entry = replace(entry, classes={})  # all are of the one class, whatever a recipe calls them
    images = annotated(entry, root, taxonomy)
    if not images:
        splits = f" of {', '.join(entry.splits)}" if entry.splits else ""
        raise InvalidArgument("--test", f"{entry.data} has no photo{splits}")
    return LabelledSet(" ".join((entry.data, *entry.splits)), images, taxonomy)


def drawn_set(count: int) -> LabelledSet:
    """Scenes of drawn products, class-agnostic."""
    return LabelledSet("drawn scenes", drawn_scenes(count), ("product",))
