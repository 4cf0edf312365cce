"""Where examples come from: a CSV file in the form of a catalogue, or a folder of pictures.

The CSV has the columns of `magpie index` and a few that only training reads:

| column | meaning |
|---|---|
| image | needed; relative to the file |
| product_id | what it shows; empty where nobody knows |
| kind | `catalogue` for the shop's own picture, `photo` for one that somebody took; else as the card says |
| split | `train`, `dev`, `test` or any other word that a recipe names |
| source | who took it: the sender, the shop, the agency |
| label, category, any other | a label, unless `labels` names the ones to take |

A table with other column names is described by a card (TOML, see `cards/`), so that no data set needs code.
In a folder each sub-folder is a label, or a product with `folders = "products"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from magpie.tables.csv_table import Row, Table, read_table
from magpie.tables.problems import BadFile, Problem
from training.datasets.example import Example
from training.recipe_file import nearest

# Columns of a catalogue that are no labels.
NOT_LABELS = frozenset(
    {"image", "product_id", "kind", "split", "source", "title", "price", "stock", "group", "grade"}
)
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif"})


@dataclass(frozen=True)
class Columns:
    """What the columns are called in a table; an absent one is not read."""

    image: str = "image"
    product_id: str = "product_id"
    kind: str = "kind"
    split: str = "split"
    source: str = "source"


@dataclass(frozen=True)
class DataSource:
    """One data set: where it lies and how to read it. Paths are relative to the folder of the data sets."""

    path: str  # a CSV file or a folder
    name: str = ""  # without it, the path's stem
    photos: str = ""  # another CSV (image, product_id) of photos of the same products, such as queries.csv
    columns: Columns = field(default_factory=Columns)
    catalogue: tuple[str, ...] = ("catalogue",)  # values of `kind` that mean the shop's own picture
    photo: tuple[str, ...] = ("photo",)  # and those that mean a photo
    kind: Literal["catalogue", "photo"] = "catalogue"  # of products' pictures in rows that do not say
    labels: tuple[str, ...] = ()  # label columns; empty: all that are none of NOT_LABELS
    constant: Mapping[str, str] = field(default_factory=dict)  # labels that every picture has
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column -> values to keep
    credit: str = ""  # whose it is and its licence, for the cards of models that are trained on it
    folders: str = "labels"  # what the sub-folders of a folder are: `labels` or `products`

    @property
    def title(self) -> str:
        """The data set's name in reports."""
        return self.name or Path(self.path).stem


def read_examples(source: DataSource, root: Path) -> list[Example]:
    """All pictures of a data set. Raises BadFile with everything that is wrong."""
    path = root / source.path
    if path.is_dir():
        return _from_folder(source, path)
    examples = _from_csv(source, path)
    if source.photos:
        examples += _photos(source, root / source.photos, examples)
    return examples


def _from_csv(source: DataSource, path: Path) -> list[Example]:
    columns = source.columns
    table = read_table(path, required=(columns.image,))
    problems = list(table.problems)
    missing = (set(source.labels) | set(source.where)) - set(table.columns)
    problems += [Problem(1, f"column `{name}` is missing") for name in sorted(missing)]
    if problems:
        raise BadFile(str(path), problems)
    examples = []
    for row in table.rows:
        if any(row.cells[column] not in values for column, values in source.where.items()):
            continue
        image = path.parent / row.cells[columns.image]
        if not row.cells[columns.image] or not image.is_file():
            problems.append(Problem(row.line, f"`{columns.image}`: there is no file {image}"))
        kind = row.cells.get(columns.kind, "")
        of_catalogue = kind in source.catalogue if kind else source.kind == "catalogue"
        if kind and kind not in (*source.catalogue, *source.photo):
            known = ", ".join((*source.catalogue, *source.photo))
            problems.append(Problem(row.line, f"`{columns.kind}` is {kind!r}, must be one of {known}"))
        examples.append(
            Example(
                path=image,
                dataset=source.title,
                product=row.cells.get(columns.product_id) or None,
                labels=_labels(source, table, row),
                catalogue=of_catalogue and columns.product_id in table.columns,
                source=row.cells.get(columns.source) or None,
                split=row.cells.get(columns.split, ""),
            )
        )
    for column, values in source.where.items():
        there = sorted({row.cells[column] for row in table.rows})
        absent = [value for value in values if value not in there]
        problems += [
            Problem(1, f"`{column}` is nowhere {v!r} as `where` says{nearest(v, there)}") for v in absent
        ]
    if not examples and not problems:
        problems.append(Problem(0, f"has no rows{' that pass `where`' if source.where else ''}"))
    if problems:
        raise BadFile(str(path), problems)
    return examples


def _labels(source: DataSource, table: Table, row: Row) -> dict[str, str]:
    named = set(vars(source.columns).values())
    columns = source.labels or [c for c in table.columns if c not in NOT_LABELS and c not in named]
    return {**source.constant, **{column: row.cells[column] for column in columns if row.cells[column]}}


def _photos(source: DataSource, path: Path, catalogue: list[Example]) -> list[Example]:
    """Photos of products that the catalogue names; they take its labels."""
    table = read_table(path, required=("image", "product_id"))
    labels = {example.product: example.labels for example in catalogue}
    problems = list(table.problems)
    photos = []
    for row in table.rows:
        image, product = path.parent / row.cells["image"], row.cells["product_id"]
        if product not in labels:
            problems.append(Problem(row.line, f"product `{product}` is not in {source.path}"))
        elif not image.is_file():
            problems.append(Problem(row.line, f"`image`: there is no file {image}"))
        else:
            taken_by, split = row.cells.get("source") or None, row.cells.get("split", "")
            photos.append(
                Example(image, source.title, product, labels[product], source=taken_by, split=split)
            )
    if problems:
        raise BadFile(str(path), problems)
    return photos


def _from_folder(source: DataSource, folder: Path) -> list[Example]:
    """Each sub-folder is a label, or a product; loose pictures show nothing known; hidden ones are left."""
    examples = []
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder).parts
        if path.suffix.lower() not in PICTURE_SUFFIXES or any(_is_hidden(part) for part in below):
            continue
        name = below[0] if len(below) > 1 else None
        labels = {"label": name} if name and source.folders == "labels" else {}
        product = name if source.folders == "products" else None
        examples.append(Example(path, source.title, product, {**source.constant, **labels}))
    if not examples:
        raise BadFile(str(folder), [Problem(0, "has no pictures: JPEG, PNG, WebP and HEIC are read")])
    filled = {example.path.relative_to(folder).parts[0] for example in examples}
    empty = [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name not in filled and not _is_hidden(path.name)
    ]
    if empty:
        kind = source.folders.removesuffix("s")
        raise BadFile(
            str(folder),
            [
                Problem(0, f"{kind} `{name}` has no pictures: add some, or remove its folder")
                for name in empty
            ],
        )
    return examples


def _is_hidden(name: str) -> bool:
    """What systems leave in folders: `.git`, `._photo.jpg`, `__MACOSX`."""
    return name.startswith((".", "__"))
