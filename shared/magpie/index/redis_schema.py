"""How the redis engine lays a bundle's objects out in Redis: names, keys, the fields of a document.

One document (a hash) an object. All spaces' vectors stand one after the other in one field, so that one
inner product with `share * query` of every space, one after the other, is the weighted mean of the cosines:
one index serves any weights exactly, and one space alone by weights of 0 for the others.

| key | type | holds |
|---|---|---|
| `magpie-object:SCHEMA:{C/SHARD}:PRODUCT 0 SHA256 0 ROW` | hash | a document; what the index covers |
| `magpie-registry:SCHEMA:{C/SHARD}` | hash | product id -> its documents, and digests of their sources |
| `magpie-fence:SCHEMA:{C/SHARD}` | text | writers with a smaller number are refused |
| `magpie-follow:{C}:BUNDLE` | hash | how far the change stream was followed (`redis_follower`) |

A product's documents lie in one shard, the shards on whichever nodes of a cluster. C and BUNDLE are quoted,
so that neither can bring a brace, a slash or a colon of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from magpie.index import filter_terms

SHARDS = 64
NUMBER_SLOTS = 16  # numeric attributes of a customer that the index can compare by order
NUMBERS = ("price", "stock", *(f"n{slot}" for slot in range(NUMBER_SLOTS)))  # NUMERIC fields
OBJECT, PRODUCT, VECTOR, CUSTOMER, VALUES = "object", "product", "vector", "customer", "values"
_LAYOUT = 1  # counts up when documents of an older version can no longer be read


@dataclass(frozen=True)
class VectorIndex:
    """How the server looks for neighbours. `flat` compares with every object, exactly; `hnsw` walks a graph.

    Malkov, Yashunin 2016. With the defaults recall@10 stays above .98 on 100,000 clustered objects, under
    filters too (docs/scaling.md).
    """

    kind: Literal["flat", "hnsw"] = "hnsw"
    m: int = 16  # links of an object in each layer of the graph
    ef_construction: int = 200  # neighbours weighed when an object enters it
    ef_runtime: int = 200  # and when a query walks it
    least_k: int = 100  # neighbours asked for at least: with fewer, filters cost recall

    @property
    def name(self) -> str:
        """In the index's name: another one is another index."""
        return "flat" if self.kind == "flat" else f"hnsw-{self.m}-{self.ef_construction}"

    def definition(self, dimension: int) -> list[str | int]:
        """The words of FT.CREATE after VECTOR."""
        words: list[str | int] = ["TYPE", "FLOAT32", "DIM", dimension, "DISTANCE_METRIC", "IP"]
        if self.kind == "hnsw":
            words += ["M", self.m, "EF_CONSTRUCTION", self.ef_construction]
        return [self.kind.upper(), len(words), *words]


@dataclass(frozen=True)
class Schema:
    """The spaces of a bundle's objects, and with them the names of all that is kept of it."""

    bundle: str
    dimensions: tuple[tuple[str, int], ...]  # space and dimension, by name

    @classmethod
    def of(cls, bundle: str, dimensions: Mapping[str, int]) -> Schema:
        """Of these spaces, in any order."""
        return cls(bundle, tuple(sorted(dimensions.items())))

    @property
    def name(self) -> str:
        """BUNDLE:DIGEST, without braces: in Valkey those would bind an index to one slot."""
        spaces = hashlib.blake2b(json.dumps([_LAYOUT, self.dimensions]).encode(), digest_size=4).hexdigest()
        return f"{quote(self.bundle, safe='@')}:{spaces}"

    @property
    def prefix(self) -> str:
        """Of all documents, and of nothing else."""
        return f"magpie-object:{self.name}:"

    @property
    def dimension(self) -> int:
        """Of the vectors of all spaces, one after the other."""
        return sum(size for _, size in self.dimensions)

    def slices(self) -> dict[str, slice]:
        """Space -> where its vector stands."""
        slices, start = {}, 0
        for space, size in self.dimensions:
            slices[space] = slice(start, start + size)
            start += size
        return slices

    def index_name(self, vector_index: VectorIndex) -> str:
        """Of the one index of all customers' objects."""
        return f"magpie:{self.name}:{vector_index.name}"

    def create(self, name: str, vector_index: VectorIndex) -> list[Any]:
        """FT.CREATE."""
        fields: list[Any] = [CUSTOMER, "TAG", VALUES, "TAG"]
        for number in NUMBERS:
            fields += [number, "NUMERIC"]
        fields += [VECTOR, "VECTOR", *vector_index.definition(self.dimension)]
        return ["FT.CREATE", name, "ON", "HASH", "PREFIX", 1, self.prefix, "SCHEMA", *fields]


@dataclass(frozen=True)
class Shard:
    """A part of one customer's documents, on one node."""

    schema: Schema
    customer: str
    number: int

    @property
    def _tag(self) -> str:
        return f"{{{quote(self.customer, safe='')}/{self.number}}}"

    @property
    def registry(self) -> str:
        """Key of what is there."""
        return f"magpie-registry:{self.schema.name}:{self._tag}"

    @property
    def fence(self) -> str:
        """Key of the smallest number that may write."""
        return f"magpie-fence:{self.schema.name}:{self._tag}"

    @property
    def documents(self) -> str:
        """Prefix of the documents' keys."""
        return f"{self.schema.prefix}{self._tag}:"


def shards(schema: Schema, customer: str) -> list[Shard]:
    """All of a customer's."""
    return [Shard(schema, customer, number) for number in range(SHARDS)]


def shard_of(product_id: str) -> int:
    """Its number."""
    return zlib.crc32(product_id.encode()) % SHARDS


def customer_prefix(schema: Schema, customer: str) -> bytes:
    """With what all keys of a customer's documents begin, and no other's."""
    return f"{schema.prefix}{{{quote(customer, safe='')}/".encode()


def index_prefix(bundle: str) -> str:
    """With what the names of a bundle's indexes begin, and no other's."""
    return f"magpie:{quote(bundle, safe='@')}:"


def follow_key(customer: str, bundle: str) -> str:
    """Key of how far the customer's change stream was followed for a bundle."""
    return f"magpie-follow:{{{quote(customer, safe='')}}}:{quote(bundle, safe='@')}"


def customer_token(customer: str) -> str:
    """A tag of letters and digits alone: no name can say anything to the server's query language."""
    return _token("customer", customer)


def value_token(customer: str, name: str, value: filter_terms.Literal) -> str:
    """The tag of products whose value for `name` is this text or flag, or a set with this text."""
    return _token("value", customer, name, value)


def kind_token(customer: str, name: str, kind: type) -> str:
    """The tag of products that have a text or a set of texts (str), or a number (float), for `name`."""
    return _token("kind", customer, name, kind.__name__)


def _token(*what: filter_terms.Literal) -> str:
    digest = hashlib.blake2b(json.dumps(what).encode(), digest_size=10).digest()
    return "t" + base64.b32encode(digest).decode().lower()  # 80 bits: 16 characters
