"""A shop's catalogue as a user keeps it: a CSV file, or a folder of pictures. Read and checked as a whole.

A column other than COLUMNS is an attribute: of numbers, or of flags, if all its cells are, else of texts. One
whose heading ends with `[]` is of sets of texts, parted by `|`: under `colours[]` stands `red|white`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from magpie.tables.csv_table import Row, Table, number, read_table
from magpie.tables.problems import BadFile, Problem
from magpie.v1.product_pb2 import AttributeValue, Product, TextSet

TEXT_COLUMNS = ("title", "category", "group")
NUMBER_COLUMNS = ("price", "stock")
COLUMNS = ("product_id", "image", *TEXT_COLUMNS, *NUMBER_COLUMNS)
MAX_ID_CHARACTERS = 128
MAX_IMAGES = 50  # of one product
MAX_SET_VALUES = 100  # of one attribute
SET_MARK = "[]"  # ends the heading of a column of sets
SET_SEPARATOR = "|"
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif"})
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIELDS = frozenset(Product.DESCRIPTOR.fields_by_name)
_KEYWORDS = frozenset({"and", "or", "not", "in", "exists", "true", "false"})  # of the filter language


@dataclass(frozen=True)
class Picture:
    """One picture of a product."""

    product_id: str
    name: str  # as the catalogue writes it
    path: Path
    sha256: str


@dataclass
class CatalogueFile:
    """Products, and the pictures that they list, each once."""

    products: list[Product] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # files of a folder that are no pictures


def read_catalogue(path: Path) -> CatalogueFile:
    """Read a CSV file or a folder. Raises BadFile with everything that is wrong."""
    return _from_folder(path) if path.is_dir() else _from_csv(path)


def _from_csv(path: Path) -> CatalogueFile:
    table = read_table(path, required=("product_id", "image"))
    problems = [*table.problems, *_column_problems(table)]
    rows = [row for row in table.rows if _row_is_sound(row, path.parent, problems)]
    problems += _doubled_rows(rows)
    by_product: dict[str, list[Row]] = {}
    for row in rows:
        by_product.setdefault(row.cells["product_id"], []).append(row)
    kinds = {name: _kind(name, (row.cells[name] for row in table.rows)) for name in _attribute_columns(table)}
    catalogue = CatalogueFile()
    for product_id, own in by_product.items():
        product = _product(product_id, own, table, kinds, problems)
        _add_pictures(
            catalogue,
            product,
            [(row.line, row.cells["image"], path.parent / row.cells["image"]) for row in own],
            problems,
        )
    if not table.rows:
        problems.append(Problem(0, "has no products"))
    if problems:
        raise BadFile(str(path), problems)
    return catalogue


def _from_folder(folder: Path) -> CatalogueFile:
    catalogue = CatalogueFile()
    by_product: dict[str, list[Path]] = {}
    problems: list[Problem] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            product_id, files = entry.name, sorted(entry.iterdir())
        else:
            product_id, files = entry.stem, [entry]
        pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
        catalogue.skipped += [str(file) for file in files if file not in pictures]
        if not pictures:
            continue
        if product_id in by_product:
            problems.append(Problem(0, f"product `{product_id}` is there twice: {entry.name} is the second"))
        if len(product_id) > MAX_ID_CHARACTERS:
            problems.append(
                Problem(0, f"{entry.name}: a product id has at most {MAX_ID_CHARACTERS} characters")
            )
        by_product.setdefault(product_id, []).extend(pictures)
    for product_id, pictures in by_product.items():
        product = Product(id=product_id, title=product_id)
        named = [(0, str(picture.relative_to(folder)), picture) for picture in pictures]
        _add_pictures(catalogue, product, named, problems)
    if not by_product:
        problems.append(Problem(0, "has no pictures: JPEG, PNG and WebP are read"))
    if problems:
        raise BadFile(str(folder), problems)
    return catalogue


def _attribute_columns(table: Table) -> list[str]:
    return [name for name in table.columns if name not in COLUMNS]


def _column_problems(table: Table) -> list[Problem]:
    problems = []
    headings = _attribute_columns(table)
    for heading in headings:
        name = heading.removesuffix(SET_MARK)
        if name != heading and name in headings:
            problems.append(Problem(1, f"columns `{name}` and `{heading}` are one attribute: keep one"))
        if not _ATTRIBUTE_NAME.fullmatch(name):
            what = "attributes are named by letters, digits and `_`, not beginning with a digit"
            problems.append(Problem(1, f"column `{name}`: {what}"))
        elif name in _FIELDS or name.lower() in _KEYWORDS:
            problems.append(Problem(1, f"column `{name}`: filters use that word already; name it otherwise"))
    return problems


def _row_is_sound(row: Row, folder: Path, problems: list[Problem]) -> bool:
    """Checks of a row by itself; what is wrong goes to `problems`."""
    found = []
    product_id, image = row.cells["product_id"], row.cells["image"]
    if not product_id:
        found.append("`product_id` is empty")
    elif len(product_id) > MAX_ID_CHARACTERS:
        found.append(f"`product_id` has {len(product_id)} characters, at most {MAX_ID_CHARACTERS}")
    if not image:
        found.append("`image` is empty")
    elif not (folder / image).is_file():
        found.append(f"`image`: there is no file {folder / image}")
    for name in NUMBER_COLUMNS:
        text = row.cells.get(name, "")
        value = number(text)
        if text and (value is None or not math.isfinite(value)):
            found.append(f"`{name}` is not a number: {text!r}")
        elif value is not None and value < 0:
            found.append(f"`{name}` is below 0: {text}")
    problems += [Problem(row.line, text) for text in found]
    return not found


def _doubled_rows(rows: Iterable[Row]) -> list[Problem]:
    first: dict[tuple[str, str], int] = {}
    problems = []
    for row in rows:
        key = (row.cells["product_id"], row.cells["image"])
        if key in first:
            text = f"product `{key[0]}` with image {key[1]} stands on line {first[key]} already"
            problems.append(Problem(row.line, text))
        first.setdefault(key, row.line)
    return problems


def _product(
    product_id: str, rows: list[Row], table: Table, kinds: dict[str, str], problems: list[Problem]
) -> Product:
    """One product of all its rows. An empty cell says nothing."""
    said: dict[str, tuple[str, int]] = {}
    for row in rows:
        for name in table.columns:
            text = row.cells[name]
            if name in ("product_id", "image") or not text:
                continue
            before = said.setdefault(name, (text, row.line))
            if before[0] != text:
                what = (
                    f"`{name}` of product `{product_id}` is {text!r}, but {before[0]!r} on line {before[1]}"
                )
                problems.append(Problem(row.line, what))
    product = Product(id=product_id)
    for name, (text, line) in said.items():
        if name in TEXT_COLUMNS:
            setattr(product, name, text)
        elif name in NUMBER_COLUMNS:
            setattr(product, name, number(text))
        else:
            value = _value(text, kinds[name])
            if not 1 <= len(value.texts.values) <= MAX_SET_VALUES and kinds[name] == "set":
                problems.append(Problem(line, f"`{name}` is no set of 1 to {MAX_SET_VALUES} texts: {text!r}"))
            product.attributes[name.removesuffix(SET_MARK)].CopyFrom(value)
    return product


def _kind(heading: str, cells: Iterable[str]) -> str:
    """`set` by the heading; `number` or `flag` if every filled cell is one; else `text`."""
    if heading.endswith(SET_MARK):
        return "set"
    filled = [cell for cell in cells if cell]
    if all((value := number(cell)) is not None and math.isfinite(value) for cell in filled):
        return "number"
    return "flag" if all(cell.lower() in ("true", "false") for cell in filled) else "text"


def _value(text: str, kind: str) -> AttributeValue:
    if kind == "number":
        return AttributeValue(number=float(text))
    if kind == "flag":
        return AttributeValue(flag=text.lower() == "true")
    if kind == "set":
        texts = (part.strip() for part in text.split(SET_SEPARATOR))
        return AttributeValue(texts=TextSet(values=dict.fromkeys(part for part in texts if part)))
    return AttributeValue(text=text)


def _add_pictures(
    catalogue: CatalogueFile, product: Product, files: list[tuple[int, str, Path]], problems: list[Problem]
) -> None:
    """The same bytes twice under one product are one picture."""
    for line, name, path in files:
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as problem:
            problems.append(Problem(line, f"{name} cannot be read: {problem.strerror}"))
            continue
        if sha256 not in product.images:
            product.images.append(sha256)
            catalogue.pictures.append(Picture(product.id, name, path, sha256))
    if len(product.images) > MAX_IMAGES:
        what = f"product `{product.id}` has {len(product.images)} images, at most {MAX_IMAGES}"
        problems.append(Problem(files[-1][0], what))
    catalogue.products.append(product)
