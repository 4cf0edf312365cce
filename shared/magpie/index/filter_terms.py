"""What a filter means. Its grammar is in `filter`.

A product has a value for a name or it has none. `id` is always there; `title`, `category` and `group` are
there unless empty; `price`, `stock` and attributes are there if set, a set of texts unless empty. Values are
texts, numbers, flags, or sets of texts.

- A comparison holds if the product has a value of the literal's own type and the operator holds between them.
  So a missing value, and a value of another type, make every comparison false, `!=` too.
- A text is compared with a set, too: `name = 'x'` holds if the set contains it, `name != 'x'` if the product
  has a set and it does not.
- `name in (a, b)` is `name = a or name = b`.
- `exists name` holds if the product has a value of any type.
- `and`, `or`, `not` are of plain two-valued logic: `not price < 5` holds for a product without a price.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from magpie.v1.product_pb2 import Product

Literal = str | float | bool  # what a filter compares with
Value = Literal | frozenset[str]  # what a product has
Mask = NDArray[np.bool_]  # (products,)

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ORDERING = frozenset({"<", "<=", ">", ">="})  # for numbers only


def value_of(product: Product, name: str) -> Value | None:
    """The product's value for `name`, None where it has none (NaN counts as none)."""
    value: Value | None = None
    match name:
        case "id" | "title" | "category" | "group":
            value = getattr(product, name) or None
        case "price" | "stock":
            value = getattr(product, name) if product.HasField(name) else None
        case _ if name in product.attributes:  # reading a map of messages would insert the name
            attribute = product.attributes[name]
            kind = attribute.WhichOneof("kind")
            if kind == "texts":
                value = frozenset(attribute.texts.values) or None
            else:
                value = getattr(attribute, kind) if kind else None
    return None if value != value else value  # noqa: PLR0124


def holds(value: Value | None, operator_: str, literal: Literal) -> bool:
    """Whether a product's value compares so with a filter's."""
    if isinstance(value, frozenset):
        return isinstance(literal, str) and (literal in value) is (operator_ == "=")
    return type(value) is type(literal) and bool(OPERATORS[operator_](value, literal))


class Columns(Protocol):
    """One column a name, one row a product. Masks are false where a product has no value of that type."""

    def compare(self, name: str, operator: str, value: Literal) -> Mask:
        """Where `operator` holds between the products' value and `value`."""

    def exists(self, name: str) -> Mask:
        """Where there is a value."""


class Filter(ABC):
    """A condition on products. `str()` gives text that parses to an equal filter."""

    @abstractmethod
    def matches(self, product: Product) -> bool:
        """Whether it holds for one product."""

    @abstractmethod
    def mask(self, columns: Columns) -> Mask:
        """Where it holds, for all products at once."""


@dataclass(frozen=True)
class Comparison(Filter):
    """`name operator value`."""

    name: str
    operator: str
    value: Literal
    position: int = field(default=0, compare=False)  # of the name in the text that was parsed

    def __post_init__(self) -> None:
        if self.operator in ORDERING and not isinstance(self.value, float):
            raise ValueError(f"`{self.operator}` takes a number, got {self.value!r}")

    def matches(self, product: Product) -> bool:
        return holds(value_of(product, self.name), self.operator, self.value)

    def mask(self, columns: Columns) -> Mask:
        return columns.compare(self.name, self.operator, self.value)

    def __str__(self) -> str:
        return f"{self.name} {self.operator} {written(self.value)}"


@dataclass(frozen=True)
class In(Filter):
    """`name in (value, ...)`."""

    name: str
    values: tuple[Literal, ...]
    position: int = field(default=0, compare=False)

    def matches(self, product: Product) -> bool:
        value = value_of(product, self.name)
        return any(holds(value, "=", other) for other in self.values)

    def mask(self, columns: Columns) -> Mask:
        return reduce(np.logical_or, [columns.compare(self.name, "=", value) for value in self.values])

    def __str__(self) -> str:
        return f"{self.name} in ({', '.join(map(written, self.values))})"


@dataclass(frozen=True)
class Exists(Filter):
    """`exists name`."""

    name: str
    position: int = field(default=0, compare=False)

    def matches(self, product: Product) -> bool:
        return value_of(product, self.name) is not None

    def mask(self, columns: Columns) -> Mask:
        return columns.exists(self.name)

    def __str__(self) -> str:
        return f"exists {self.name}"


@dataclass(frozen=True)
class Not(Filter):
    """`not term`."""

    term: Filter

    def matches(self, product: Product) -> bool:
        return not self.term.matches(product)

    def mask(self, columns: Columns) -> Mask:
        return ~self.term.mask(columns)

    def __str__(self) -> str:
        return f"not {_operand(self.term)}"


@dataclass(frozen=True)
class And(Filter):
    """`term and term ...`, at least two."""

    terms: tuple[Filter, ...]

    def matches(self, product: Product) -> bool:
        return all(term.matches(product) for term in self.terms)

    def mask(self, columns: Columns) -> Mask:
        return reduce(np.logical_and, [term.mask(columns) for term in self.terms])

    def __str__(self) -> str:
        return " and ".join(map(_operand, self.terms))


@dataclass(frozen=True)
class Or(Filter):
    """`term or term ...`, at least two."""

    terms: tuple[Filter, ...]

    def matches(self, product: Product) -> bool:
        return any(term.matches(product) for term in self.terms)

    def mask(self, columns: Columns) -> Mask:
        return reduce(np.logical_or, [term.mask(columns) for term in self.terms])

    def __str__(self) -> str:
        return " or ".join(map(_operand, self.terms))


def _operand(term: Filter) -> str:
    return f"({term})" if isinstance(term, And | Or) else str(term)


def written(value: Literal) -> str:
    """The literal as a filter writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    quote = '"' if value.count("'") > value.count('"') else "'"
    return quote + value.replace(quote, quote * 2) + quote
