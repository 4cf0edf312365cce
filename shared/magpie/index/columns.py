"""Values of products by name, as arrays, so that a filter is evaluated for a whole catalogue at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from magpie.index.filter_terms import OPERATORS, Literal, Mask, Value, value_of
from magpie.v1.product_pb2 import Product

ABSENT = -1  # of a text's code and of a flag
_NO_ROW = np.iinfo(np.int32).max
Scalar = TypeVar("Scalar", bound=np.generic)


class _Column:
    """One name's values. Rows are only appended, so that whoever took the arrays keeps a consistent view."""

    def __init__(self) -> None:
        self.codes: NDArray[np.int32] = np.empty(0, np.int32)  # number of the text, ABSENT: not a text
        # Numbers of the texts of all sets, in row order.
        self.members: NDArray[np.int32] = np.empty(0, np.int32)
        self.member_rows: NDArray[np.int32] = np.empty(0, np.int32)  # the row of each, _NO_ROW: not in use
        self.numbers: NDArray[np.float64] = np.empty(0)  # NaN: not a number
        self.flags: NDArray[np.int8] = np.empty(0, np.int8)  # 0, 1, ABSENT: not a flag
        self.code_of: dict[str, int] = {}
        self.rows = 0
        self._member_count = 0

    def append(self, values: Sequence[Value | None]) -> None:
        stop = self.rows + len(values)
        if stop > len(self.codes):
            capacity = max(stop, 2 * len(self.codes), 64)
            self.codes = _grown(self.codes, capacity, ABSENT)
            self.numbers = _grown(self.numbers, capacity, np.nan)
            self.flags = _grown(self.flags, capacity, ABSENT)
        for row, value in enumerate(values, self.rows):
            if isinstance(value, str):
                self.codes[row] = self.code_of.setdefault(value, len(self.code_of))
            elif isinstance(value, bool):
                self.flags[row] = value
            elif isinstance(value, frozenset):
                self._append_members(row, value)
            elif value is not None:
                self.numbers[row] = value
        self.rows = stop

    def _append_members(self, row: int, texts: frozenset[str]) -> None:
        start, stop = self._member_count, self._member_count + len(texts)
        if stop > len(self.members):
            capacity = max(stop, 2 * len(self.members), 64)
            self.members = _grown(self.members, capacity, ABSENT)
            self.member_rows = _grown(self.member_rows, capacity, _NO_ROW)
        self.members[start:stop] = [self.code_of.setdefault(text, len(self.code_of)) for text in texts]
        self.member_rows[start:stop] = row
        self._member_count = stop

    def compare(self, operator: str, value: Literal, rows: int) -> Mask:
        holds = OPERATORS[operator]
        if isinstance(value, float):
            numbers = self.numbers[:rows]
            return np.asarray(holds(numbers, value) & ~np.isnan(numbers))  # NaN != value would hold
        if isinstance(value, bool):
            flags = self.flags[:rows]
            return np.asarray(holds(flags, int(value)) & (flags != ABSENT))
        codes = self.codes[:rows]
        code = self.code_of.get(value, len(self.code_of))  # a text that none has: a code that none has
        texts = np.asarray(holds(codes, code) & (codes != ABSENT))
        has_set, contains = self._sets(code, rows)
        return texts | (contains if operator == "=" else has_set & ~contains)

    def exists(self, rows: int) -> Mask:
        absent = (self.codes[:rows] == ABSENT) & (self.flags[:rows] == ABSENT)
        return np.asarray(~absent | ~np.isnan(self.numbers[:rows])) | self._sets(ABSENT, rows)[0]

    def _sets(self, code: int, rows: int) -> tuple[Mask, Mask]:
        """Where there is a set, and where it contains the text with that code."""
        member_rows = self.member_rows[: np.searchsorted(self.member_rows, rows)]
        has_set, contains = np.zeros((2, rows), np.bool_)
        has_set[member_rows] = True
        contains[member_rows[self.members[: len(member_rows)] == code]] = True
        return has_set, contains


class ProductColumns:
    """Columns of a growing list of products, thread-safe.

    A column is built when a filter first names it, and from then on grows with the products. The
    `max_columns` used last are kept, so that odd names cannot fill the memory.
    """

    def __init__(self, max_columns: int = 64) -> None:
        self.products: list[Product] = []
        self._columns: OrderedDict[str, _Column] = OrderedDict()
        self._max_columns = max_columns
        self._lock = threading.Lock()

    def append(self, products: Sequence[Product]) -> None:
        """Add products, one row each."""
        with self._lock:
            self.products.extend(products)
            for name, column in self._columns.items():
                column.append([value_of(product, name) for product in products])

    def first(self, rows: int) -> ColumnsView:
        """The columns of the first `rows` products, whatever is appended meanwhile."""
        return ColumnsView(self, rows)

    def column(self, name: str) -> _Column:
        with self._lock:
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = _Column()
                column.append([value_of(product, name) for product in self.products])
                if len(self._columns) > self._max_columns:
                    self._columns.popitem(last=False)
            self._columns.move_to_end(name)
            return column


class ColumnsView:
    """What `filter_terms.Columns` asks for, over the first rows of ProductColumns."""

    def __init__(self, columns: ProductColumns, rows: int) -> None:
        self._columns = columns
        self._rows = rows

    def compare(self, name: str, operator: str, value: Literal) -> Mask:
        return self._columns.column(name).compare(operator, value, self._rows)

    def exists(self, name: str) -> Mask:
        return self._columns.column(name).exists(self._rows)


def _grown(array: NDArray[Scalar], capacity: int, fill: float) -> NDArray[Scalar]:
    grown = np.full(capacity, fill, array.dtype)
    grown[: len(array)] = array
    return grown
