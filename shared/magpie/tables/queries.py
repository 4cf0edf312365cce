"""Queries with known answers: photos, and the products that are right for each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from magpie.tables.csv_table import number, read_table
from magpie.tables.problems import BadFile, Problem


@dataclass
class Query:
    """A photo and the grade of each product that is right for it, above 0; a higher one is better."""

    path: Path
    grades: dict[str, float] = field(default_factory=dict)


def read_queries(path: Path) -> list[Query]:
    """Read `image,product_id[,grade]`; several rows of one image name several right products.

    Raises BadFile with everything that is wrong.
    """
    table = read_table(path, required=("image", "product_id"))
    problems = list(table.problems)
    queries: dict[str, Query] = {}
    for row in table.rows:
        image, product_id = row.cells["image"], row.cells["product_id"]
        grade = number(row.cells.get("grade") or "1")
        if not product_id:
            problems.append(Problem(row.line, "`product_id` is empty"))
        if not image or not (path.parent / image).is_file():
            problems.append(Problem(row.line, f"`image`: there is no file {path.parent / image}"))
        if grade is None or not math.isfinite(grade) or grade < 0:
            problems.append(
                Problem(row.line, f"`grade` must be a number of at least 0: {row.cells['grade']!r}")
            )
            continue
        query = queries.setdefault(image, Query(path.parent / image))
        if product_id in query.grades:
            problems.append(Problem(row.line, f"product `{product_id}` stands there twice for {image}"))
        query.grades[product_id] = grade
    for image, query in queries.items():
        if not any(query.grades.values()):
            problems.append(Problem(0, f"{image} has no product with a grade above 0"))
    if not table.rows:
        problems.append(Problem(0, "has no queries"))
    if problems:
        raise BadFile(str(path), problems)
    return list(queries.values())
