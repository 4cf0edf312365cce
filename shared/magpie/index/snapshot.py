"""One customer's index of one bundle at one moment, in a file that is never changed. See `section_file`.

P products in the order of their ids' hashes, N objects in the order of their products:

| array | shape | holds |
|---|---|---|
| `planes` | (W, N) uint64 | the codes of all spaces, see `code_planes` |
| `records` | (N,) of RECORD | of each object: an int8 vector and its scale for each space, its box |
| `image_numbers` | (N,) uint8 | which of its product's pictures, as the record in `products` lists them |
| `first` | (P + 1,) uint32 | product p has the objects first[p] to first[p + 1] |
| `owners` | (N,) uint32 | the product of each object |
| `ids.*` | | the products' ids, a TextDictionary: a product's number is its row |
| `products`, `product_ends` | bytes, (P,) | Product messages, one after the other |
| `columns.NAME.*` | (P,) | the values of an attribute, see `snapshot_columns` |
| `coder.SPACE.*` | | the hash model that made the codes: a snapshot can be searched without its bundle |
| `merged` | bytes | JSON: what the catalogue may let go of, see `compaction` |

A query reads all planes, and a few hundred records; only what is mapped, planes and columns, counts as
memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magpie.index.code_planes import Planes, Words, words_of
from magpie.index.hash_model import Coder, HashModel
from magpie.index.int8_vectors import Int8Vectors
from magpie.index.section_file import SectionFile
from magpie.index.snapshot_columns import SnapshotColumns
from magpie.index.text_dictionary import TextDictionary
from magpie.v1.product_pb2 import Product

FORMAT = 1
Vectors = dict[str, NDArray[np.float32]]  # space -> (N, dimension)


@dataclass(frozen=True)
class Merged:
    """An image that a snapshot took over from the catalogue."""

    product_id: str
    image_sha256: str
    digest: str  # SHA-1 of the catalogue's value
    generation: int  # the first snapshot that has it


def record_type(dimensions: Mapping[str, int]) -> np.dtype[Any]:
    """Of one object. Fields `SPACE` int8 (d,), `scales` float32 (S,), `box` float32 (4,)."""
    vectors = [(space, "i1", (dimension,)) for space, dimension in dimensions.items()]
    return np.dtype([*vectors, ("scales", "<f4", (len(dimensions),)), ("box", "<f4", (4,))])


def records_of(vectors: Vectors, boxes: NDArray[np.float32]) -> NDArray[Any]:
    """Space -> (N, d) unit vectors and (N, 4) boxes as (N,) records."""
    records = np.empty(len(boxes), record_type({space: v.shape[1] for space, v in vectors.items()}))
    for number, (space, matrix) in enumerate(vectors.items()):
        rounded = Int8Vectors.of(matrix)
        records[space] = rounded.values
        records["scales"][:, number] = rounded.scales
    records["box"] = boxes
    return records


class Snapshot:
    """Reads such a file. Immutable: threads may share it."""

    def __init__(self, path: Path) -> None:
        """Raises Damaged unless every array has its checksum, OSError if the file cannot be read."""
        self.file = SectionFile(path)
        self.file.check()
        facts = self.file.facts
        self.generation = int(facts["generation"])
        self.cursor = str(facts["cursor"])  # place in the change stream: later changes are not in here
        self.dimensions: dict[str, int] = facts["dimensions"]  # space -> dimension
        self.planes: Planes = self.file.array("planes")
        self.first: NDArray[np.uint32] = self.file.array("first")
        self.owners: NDArray[np.uint32] = self.file.array("owners")
        self.image_numbers: NDArray[np.uint8] = self.file.array("image_numbers")
        self.columns = SnapshotColumns(self.file, self.products, self._ids)

    @property
    def products(self) -> int:
        """P."""
        return len(self.first) - 1

    @property
    def objects(self) -> int:
        """N."""
        return len(self.image_numbers)

    @cached_property
    def _ids(self) -> TextDictionary:
        return TextDictionary.read(self.file, "ids")

    @property
    def id_hashes(self) -> NDArray[np.uint64]:
        """(P,), ascending."""
        return self._ids.hashes

    @cached_property
    def hash_model(self) -> HashModel:
        """What made the codes."""
        coders = {}
        for space in self.dimensions:
            layers = range(sum(name.startswith(f"coder.{space}.weight.") for name in self.file.names))
            weights = tuple(self.file.array(f"coder.{space}.weight.{layer}") for layer in layers)
            biases = tuple(self.file.array(f"coder.{space}.bias.{layer}") for layer in layers)
            coders[space] = Coder("snapshot", weights, biases)
        return HashModel(coders)

    @cached_property
    def bits(self) -> dict[str, int]:
        """Space -> bits of a code, in the order of the planes."""
        return {space: self.hash_model.bits[space] for space in self.dimensions}

    @cached_property
    def _ends(self) -> NDArray[np.uint64]:
        return self.file.array("product_ends")

    @cached_property
    def merged(self) -> list[Merged]:
        """What came into this snapshot and the one before from the catalogue."""
        return [Merged(*entry) for entry in json.loads(self.file.array("merged").tobytes())]

    def words(self, vectors: Mapping[str, NDArray[np.float32]]) -> Words:
        """Code of one object, (W,). `vectors`: space -> (d,)."""
        model = self.hash_model
        return words_of([model.encode(space, vectors[space][None]) for space in self.dimensions])[:, 0]

    def product_row(self, product_id: str) -> int | None:
        """None: it is not here."""
        return self._ids.number_of(product_id)

    def product_bytes(self, row: int) -> bytes:
        """Its Product, serialised."""
        start = int(self._ends[row - 1]) if row else 0
        return self.file.read_bytes("products", start, int(self._ends[row]))

    def objects_of(self, row: int) -> range:
        """The rows of a product's objects."""
        return range(int(self.first[row]), int(self.first[row + 1]))

    def image_objects(self, row: int, image_sha256: str) -> NDArray[np.intp]:
        """The rows of the objects of one picture of product `row`."""
        images = list(Product.FromString(self.product_bytes(row)).images)
        if image_sha256 not in images:
            return np.empty(0, np.intp)
        objects = self.objects_of(row)
        here = self.image_numbers[objects.start : objects.stop] == images.index(image_sha256)
        return objects.start + np.flatnonzero(here)

    def records(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """(R,) -> (R,) records."""
        return self.file.read_rows("records", rows)

    def vectors(self, records: NDArray[Any]) -> Vectors:
        """What the int8 numbers stand for: space -> (R, d)."""
        return {
            space: records[space].astype(np.float32) * records["scales"][:, number, None]
            for number, space in enumerate(self.dimensions)
        }
