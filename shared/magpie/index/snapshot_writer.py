"""Writes a snapshot file. What it holds is in `snapshot`."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magpie.index.code_planes import Planes, words_of
from magpie.index.columns import ABSENT
from magpie.index.filter_terms import Value, value_of
from magpie.index.hash_model import HashModel
from magpie.index.section_file import SectionWriter
from magpie.index.snapshot import FORMAT, Merged, Vectors, record_type, records_of
from magpie.index.text_dictionary import TextDictionary, in_order
from magpie.v1.product_pb2 import Product

_DENSE_ABOVE = 1 / 4  # share of the products with a value above which a column has a row for each of them
_FIELDS = ("title", "category", "price", "stock", "group")  # `id` has its own dictionary


@dataclass(frozen=True)
class Block:
    """Some products, in the order of their ids' hashes, with their objects."""

    products: Sequence[bytes]  # Product, serialised
    counts: Sequence[int]  # objects of each product
    records: NDArray[Any]  # (n,) of `record_type`
    planes: Planes  # (W, n)
    image_numbers: NDArray[np.uint8]  # (n,)


def encoded(model: HashModel, vectors: Vectors, boxes: NDArray[np.float32]) -> tuple[NDArray[Any], Planes]:
    """Records (n,) and planes (W, n) of objects. `vectors`: space -> (n, d), unit norm; `boxes` (n, 4)."""
    return records_of(vectors, boxes), words_of([model.encode(space, v) for space, v in vectors.items()])


def write_snapshot(
    path: Path,
    model: HashModel,
    dimensions: Mapping[str, int],
    blocks: Iterable[Block],
    *,
    generation: int,
    cursor: str = "",
    merged: Sequence[Merged] = (),
) -> None:
    """Write all blocks. `dimensions`: space -> dimension, in the order of the planes and records."""
    facts = {
        "format": FORMAT,
        "generation": generation,
        "cursor": cursor,
        "dimensions": dict(dimensions),
    }
    with SectionWriter(path, facts) as file:
        gathered = _Gathered()
        records = (block.records for block in gathered.watch(blocks))
        file.add_blocks("records", records, record_type(dimensions))
        gathered.write(file)
        for name, values in _coders(model, dimensions).items():
            file.add(name, values)
        entries = json.dumps([list(asdict(entry).values()) for entry in merged])
        file.add("merged", np.frombuffer(entries.encode(), np.uint8))


class _Gathered:
    """What is written after the last block: all but the records, which are written as they come."""

    def __init__(self) -> None:
        self._planes: list[Planes] = []
        self._image_numbers: list[NDArray[np.uint8]] = []
        self._counts = array("I")
        self._ids: list[str] = []
        self._products: list[bytes] = []  # those of a block, joined
        self._sizes = array("I")  # bytes of each product
        self._columns: dict[str, _Column] = {}

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            self._planes.append(block.planes)
            self._image_numbers.append(block.image_numbers)
            self._counts.extend(block.counts)
            self._products.append(b"".join(block.products))
            for content in block.products:
                self._take(Product.FromString(content))
            self._sizes.extend(map(len, block.products))
            yield block

    def _take(self, product: Product) -> None:
        row = len(self._ids)
        self._ids.append(product.id)
        for name in (*_FIELDS, *product.attributes):
            value = value_of(product, name)
            if value is not None:
                column = self._columns.get(name)
                if column is None:
                    column = self._columns[name] = _Column()
                column.append(row, value)

    def write(self, file: SectionWriter) -> None:
        rows = len(self._ids)
        planes = self._planes or [np.empty((0, 0), np.uint64)]
        file.add("planes", np.concatenate(planes, axis=1))
        file.add("image_numbers", np.concatenate([np.empty(0, np.uint8), *self._image_numbers]))
        counts = np.array(self._counts, np.uint32)
        file.add("first", np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32))
        file.add("owners", np.repeat(np.arange(rows, dtype=np.uint32), counts))
        file.add_blocks("products", (np.frombuffer(p, np.uint8) for p in self._products), np.dtype(np.uint8))
        file.add("product_ends", np.cumsum(np.array(self._sizes, np.uint64), dtype=np.uint64))
        TextDictionary.of_ordered(self._ids).write(file, "ids")
        for name, column in self._columns.items():
            column.write(file, f"columns.{name}", rows)


class _Column:
    """Values of one name, for the products that have one."""

    def __init__(self) -> None:
        self._number_of: dict[str, int] = {}  # of a text, in the order that they come
        self._values: dict[str, Any] = {
            "codes": array("i"),
            "members": array("i"),
            "numbers": array("d"),
            "flags": array("b"),
        }
        self._rows = {kind: array("i") for kind in self._values}

    def append(self, row: int, value: Value) -> None:
        if isinstance(value, str):
            self._append("codes", row, self._number(value))
        elif isinstance(value, frozenset):
            for text in sorted(value):  # equal products make equal files
                self._append("members", row, self._number(text))
        elif isinstance(value, bool):
            self._append("flags", row, value)
        else:
            self._append("numbers", row, value)

    def _number(self, text: str) -> int:
        return self._number_of.setdefault(text, len(self._number_of))

    def _append(self, kind: str, row: int, value: float) -> None:
        self._rows[kind].append(row)
        self._values[kind].append(value)

    def write(self, file: SectionWriter, name: str, products: int) -> None:
        numbers = self._write_texts(file, f"{name}.texts") if self._number_of else None
        for kind, taken in self._values.items():
            values, rows = np.array(taken), np.array(self._rows[kind])
            if not len(values):
                continue
            if numbers is not None and kind in ("codes", "members"):
                values = numbers[values]
            if kind != "members" and len(values) > _DENSE_ABOVE * products:
                dense = np.full(products, np.nan if kind == "numbers" else ABSENT, values.dtype)
                dense[rows] = values
                file.add(f"{name}.{kind}", dense)
            else:
                file.add(f"{name}.{kind}", values)
                file.add(f"{name}.{kind}.rows", rows)

    def _write_texts(self, file: SectionWriter, name: str) -> NDArray[np.int32]:
        """Returns the number that each text has in the file."""
        texts = in_order(self._number_of)
        TextDictionary.of_ordered(texts).write(file, name)
        numbers = np.empty(len(texts), np.int32)
        numbers[[self._number_of[text] for text in texts]] = np.arange(len(texts), dtype=np.int32)
        return numbers


def _coders(model: HashModel, dimensions: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    arrays = {}
    for space in dimensions:
        coder = model.coders[space]
        for layer, (weight, bias) in enumerate(zip(coder.weights, coder.biases, strict=True)):
            arrays[f"coder.{space}.weight.{layer}"] = weight
            arrays[f"coder.{space}.bias.{layer}"] = bias
    return arrays
