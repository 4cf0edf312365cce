"""What of a filter a search server can evaluate: tags of texts and flags, ranges of numbers.

The rest is for the engine, which evaluates the whole filter again on every product that the server finds. So
a condition that is left out here costs time, never exactness.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from magpie.index.filter_terms import And, Comparison, Exists, Filter, In, Literal, Not, Or, value_of
from magpie.index.redis_schema import (
    CUSTOMER,
    NUMBER_SLOTS,
    NUMBERS,
    PRODUCT,
    VALUES,
    customer_token,
    kind_token,
    value_token,
)
from magpie.v1.product_pb2 import Product

_TEXTS = ("id", "title", "category", "group")
_RESERVED = frozenset((*_TEXTS, "price", "stock"))
_LONGEST_NUMBER = 60  # characters

Slots = Mapping[str, int]  # numeric attribute -> its NUMERIC field `nSLOT`


@dataclass(frozen=True)
class Pushdown:
    """A filter for the server. It holds for every product that the whole filter holds for."""

    query: str
    exact: bool  # and for no other


def product_fields(customer: str, product: Product, slots: Slots) -> dict[str, str | bytes]:
    """What a document has of its product. A field of NUMBERS that is missing: it has no such number."""
    tokens: list[str] = []
    numbers: dict[str, str] = {}
    for name in (*_RESERVED, *product.attributes):
        value = value_of(product, name)
        match value:
            case bool():
                tokens.append(value_token(customer, name, value))
            case str():
                tokens += [value_token(customer, name, value), kind_token(customer, name, str)]
            case frozenset():
                tokens += [value_token(customer, name, text) for text in value]
                tokens.append(kind_token(customer, name, str))
            case float():
                tokens.append(kind_token(customer, name, float))
                field = _number_field(name, slots)
                if field is not None:
                    numbers[field] = repr(value)
    return {
        CUSTOMER: customer_token(customer),
        VALUES: ",".join(sorted(tokens)),
        PRODUCT: product.SerializeToString(deterministic=True),
        **numbers,
    }


def with_slots(slots: Slots, products: Iterable[Product]) -> dict[str, int]:
    """`slots`, and new ones for numeric attributes that had none, as long as there are free ones.

    An attribute that gets one has been in no product before, so that no older document lacks its field.
    """
    known = dict(slots)
    for product in products:
        for name, attribute in product.attributes.items():
            if len(known) == NUMBER_SLOTS:
                return known
            if name not in known and attribute.WhichOneof("kind") == "number":
                known[name] = len(known)
    return known


def pushdown(customer: str, condition: Filter | None, slots: Slots, max_terms: int) -> Pushdown:
    """As much of it as can be said in `max_terms` terms, always with the customer."""
    clauses = [f"@{CUSTOMER}:{{{customer_token(customer)}}}"]
    left, exact = max_terms - 1, True
    for term in _conjuncts(condition):
        clause = _Compiler(customer, slots).clause(term)
        if clause is None or clause.terms > left:
            exact = False
            continue
        clauses.append(clause.query)
        left -= clause.terms
    return Pushdown(" ".join(clauses), exact)


@dataclass(frozen=True)
class _Clause:
    query: str
    terms: int


class _Compiler:
    """A filter as a clause that holds for exactly the same products, or None: the server cannot tell."""

    def __init__(self, customer: str, slots: Slots) -> None:
        self._customer = customer
        self._slots = slots

    def clause(self, term: Filter) -> _Clause | None:
        match term:
            case And():
                return _joined(" ", [self.clause(part) for part in term.terms])
            case Or():
                return _joined(" | ", [self.clause(part) for part in term.terms])
            case Not():
                return _negated(self.clause(term.term))
            case Exists():
                return self._has(term.name, str, float, bool)
            case In():
                return _joined(" | ", [self._compared(term.name, "=", value) for value in term.values])
        assert isinstance(term, Comparison)
        return self._compared(term.name, term.operator, term.value)

    def _compared(self, name: str, operator: str, value: Literal) -> _Clause | None:
        if operator == "=":
            return self._equal(name, value)
        if operator == "!=":
            return _joined(" ", [self._has(name, type(value)), _negated(self._equal(name, value))])
        assert isinstance(value, float)
        number = _number(value)
        bound = number and (f"({number}" if operator in ("<", ">") else number)
        if operator in ("<", "<="):
            return self._range(name, "-inf", bound)
        return self._range(name, bound, "+inf")

    def _equal(self, name: str, value: Literal) -> _Clause | None:
        if isinstance(value, float):
            number = _number(value)
            return self._range(name, number, number)
        return self._tags(value_token(self._customer, name, value))

    def _has(self, name: str, *kinds: type) -> _Clause:
        tokens = []
        for kind in kinds:
            if kind is bool:
                tokens += [value_token(self._customer, name, flag) for flag in (True, False)]
            else:
                tokens.append(kind_token(self._customer, name, kind))
        return self._tags(*tokens)

    def _tags(self, *tokens: str) -> _Clause:
        return _Clause(f"@{VALUES}:{{{'|'.join(tokens)}}}", len(tokens))

    def _range(self, name: str, low: str | None, high: str | None) -> _Clause | None:
        field = _number_field(name, self._slots)
        if field is None or low is None or high is None:
            return None
        return _Clause(f"@{field}:[{low} {high}]", 1)


def _conjuncts(condition: Filter | None) -> list[Filter]:
    match condition:
        case None:
            return []
        case And():
            return [part for term in condition.terms for part in _conjuncts(term)]
    return [condition]


def _joined(sign: str, clauses: list[_Clause | None]) -> _Clause | None:
    known = [clause for clause in clauses if clause is not None]
    if len(known) < len(clauses):
        return None
    return _Clause(f"({sign.join(c.query for c in known)})", sum(clause.terms for clause in known))


def _negated(clause: _Clause | None) -> _Clause | None:
    return clause and _Clause(f"-({clause.query})", clause.terms)


def _number_field(name: str, slots: Slots) -> str | None:
    if name in NUMBERS[:2]:
        return name
    return None if name in _RESERVED or name not in slots else f"n{slots[name]}"


def _number(value: float) -> str | None:
    """Without an exponent, which not every server reads."""
    text = format(Decimal(repr(value)), "f") if math.isfinite(value) else ""
    return text if 0 < len(text) <= _LONGEST_NUMBER else None
