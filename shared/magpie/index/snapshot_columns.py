"""Attribute columns of a snapshot, mapped from its file: what `filter_terms.Columns` asks for.

Of each name, where a product has a value of that type at all: `columns.NAME.codes` int32, the number of a
text in `columns.NAME.texts.*`, a TextDictionary; `.members` int32, such numbers of all texts of sets;
`.numbers` float64; `.flags` int8. A column has a row a product, (P,), or, of sets and where most products
have no such value, a row for each of `columns.NAME.KIND.rows` (K,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magpie.index.columns import ABSENT
from magpie.index.filter_terms import OPERATORS, Literal, Mask
from magpie.index.section_file import SectionFile
from magpie.index.text_dictionary import TextDictionary


class SnapshotColumns:
    """Columns of the P products of a snapshot."""

    def __init__(self, file: SectionFile, products: int, ids: TextDictionary) -> None:
        self._file = file
        self._sections = frozenset(file.names)
        self._products = products
        self._ids = ids

    def compare(self, name: str, operator: str, value: Literal) -> Mask:
        """Where the operator holds between the products' value and `value`."""
        holds = OPERATORS[operator]
        if name == "id":
            return self._compare_ids(operator, value)
        if isinstance(value, float):
            if operator == "!=":  # NaN: no number. It differs from every value
                return self._where(name, "numbers", lambda numbers: (numbers != value) & ~np.isnan(numbers))
            return self._where(name, "numbers", lambda numbers: holds(numbers, value))
        if isinstance(value, bool):
            return self._where(name, "flags", lambda flags: holds(flags, int(value)) & (flags != ABSENT))
        number = self._number(name, value)
        texts = self._where(name, "codes", lambda codes: holds(codes, number) & (codes != ABSENT))
        contains = self._where(name, "members", lambda members: members == number)
        return texts | (contains if operator == "=" else self._where(name, "members", _any) & ~contains)

    def exists(self, name: str) -> Mask:
        """Where there is a value."""
        if name == "id":
            return np.ones(self._products, np.bool_)
        there = self._where(name, "numbers", lambda numbers: ~np.isnan(numbers))
        there |= self._where(name, "members", _any)
        for kind in ("codes", "flags"):
            there |= self._where(name, kind, lambda values: values != ABSENT)
        return there

    def _where(self, name: str, kind: str, test: Callable[[NDArray[Any]], Mask]) -> Mask:
        section = f"columns.{name}.{kind}"
        if section not in self._sections:
            return np.zeros(self._products, np.bool_)
        mask = np.asarray(test(self._file.array(section)))
        if f"{section}.rows" not in self._sections:
            return mask
        spread = np.zeros(self._products, np.bool_)
        spread[self._file.array(f"{section}.rows")[mask]] = True
        return spread

    def _number(self, name: str, text: str) -> int:
        """Of a text; one that no product has if it is not there."""
        section = f"columns.{name}.texts"
        if f"{section}.hashes" not in self._sections:
            return 0
        texts = TextDictionary.read(self._file, section)
        number = texts.number_of(text)
        return len(texts) if number is None else number

    def _compare_ids(self, operator: str, value: Literal) -> Mask:
        mask = np.zeros(self._products, np.bool_)
        row = self._ids.number_of(value) if isinstance(value, str) else None
        if row is not None:
            mask[row] = True
        return ~mask if operator == "!=" and isinstance(value, str) else mask


def _any(values: NDArray[Any]) -> Mask:
    return np.ones(len(values), np.bool_)
