"""CSV files with a header, read strictly: every row with its line number."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from magpie.tables.problems import BadFile, Problem

# Plain decimal notation. A leading zero (`007`) is a code and no number.
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Row:
    """One row: column -> stripped cell."""

    line: int  # where it begins, from 1
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV file as it stands, and what is wrong with its form."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]


def read_table(path: Path, required: Collection[str]) -> Table:
    """UTF-8, with or without byte order mark. Raises BadFile if there is no table to go on with."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as problem:
        raise BadFile(str(path), [Problem(0, f"cannot be read: {problem.strerror}")]) from problem
    except UnicodeDecodeError as problem:
        line = path.read_bytes()[: problem.start].count(b"\n") + 1
        raise BadFile(str(path), [Problem(line, "is not UTF-8: save the file as UTF-8")]) from problem
    try:
        lines = list(_records(text))
    except csv.Error as problem:
        raise BadFile(str(path), [Problem(0, f"is not CSV: {problem}")]) from problem
    if not lines:
        raise BadFile(str(path), [Problem(0, "is empty: the first line names the columns")])
    columns = tuple(cell.strip() for cell in lines[0][1])
    problems = [Problem(1, f"column `{name}` is missing") for name in sorted(set(required) - set(columns))]
    problems += [
        Problem(1, f"column `{name}` is there twice")
        for name in sorted({name for name in columns if columns.count(name) > 1})
    ]
    if problems:
        raise BadFile(str(path), problems)
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(columns):
            problems.append(Problem(line, f"has {len(cells)} cells, the header has {len(columns)}"))
        else:
            stripped = (cell.strip() for cell in cells)
            rows.append(Row(line, dict(zip(columns, stripped, strict=True))))
    return Table(columns, tuple(rows), tuple(problems))


def number(text: str) -> float | None:
    """The number that a cell writes, or None. `1,5`, `nan`, `1_000` and `007` are none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, cells) of each record; blank lines are skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1
