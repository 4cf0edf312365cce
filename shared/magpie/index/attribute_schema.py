"""Which names a customer's products have values for, and of which types: learned from the products."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain

from magpie.index.filter_terms import Value, value_of
from magpie.v1.product_pb2 import Product


class ValueType(StrEnum):
    """What a value is."""

    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    SET = "set"  # of texts


BUILT_IN = {
    "id": ValueType.TEXT,
    "title": ValueType.TEXT,
    "category": ValueType.TEXT,
    "group": ValueType.TEXT,
    "price": ValueType.NUMBER,
    "stock": ValueType.NUMBER,
}


def type_of(value: Value) -> ValueType:
    """The type of a product's value, or of a filter's literal."""
    match value:
        case bool():
            return ValueType.FLAG
        case float():
            return ValueType.NUMBER
        case str():
            return ValueType.TEXT
    return ValueType.SET


def types_of(product: Product) -> Iterator[tuple[str, ValueType]]:
    """Every name that the product has a value for, and the value's type."""
    for name in chain(BUILT_IN, sorted(product.attributes)):
        value = value_of(product, name)
        if value is not None:
            yield name, type_of(value)


@dataclass(frozen=True)
class AttributeSchema:
    """One customer's names. Built-in names are always there, with the types that they always have."""

    counts: Mapping[str, Mapping[ValueType, int]] = field(default_factory=dict)  # name -> type -> products
    products: int = 0  # of the customer, learned from or not

    @property
    def learned(self) -> int:
        """How many products it was learned from."""
        return sum(self.counts.get("id", {}).values())

    @property
    def is_complete(self) -> bool:
        """Whether a name that is not here is one that no product has.

        It is not while there are no products yet, nor while there are some that an earlier release wrote.
        """
        return 0 < self.products == self.learned

    @property
    def names(self) -> list[str]:
        """Built-in ones first, then by the alphabet."""
        return [*BUILT_IN, *sorted(self.counts.keys() - BUILT_IN.keys())]

    def types(self, name: str) -> list[ValueType]:
        """The types that values of this name have; none if it is unknown."""
        return [BUILT_IN[name]] if name in BUILT_IN else sorted(self.counts.get(name, ()))
