"""Queries with known answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from magpie.tables.problems import BadFile
from magpie.tables.queries import read_queries


def write(folder: Path, text: str) -> Path:
    (folder / "a.jpg").write_bytes(b"a")
    (folder / "b.jpg").write_bytes(b"b")
    path = folder / "queries.csv"
    path.write_text(text)
    return path


def test_rows_of_one_image_are_one_query(tmp_path: Path) -> None:
    path = write(tmp_path, "image,product_id,grade\na.jpg,p1,3\na.jpg,p2,\nb.jpg,p1,0.5\nb.jpg,p3,0\n")
    first, second = read_queries(path)
    assert (first.path, first.grades) == (tmp_path / "a.jpg", {"p1": 3.0, "p2": 1.0})
    assert second.grades == {"p1": 0.5, "p3": 0.0}


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "image,product_id,grade\nc.jpg,p1,\na.jpg,,1\na.jpg,p1,-1\nb.jpg,p1,0\nb.jpg,p1,high\nb.jpg,p1,0\n",
    )
    with pytest.raises(BadFile) as caught:
        read_queries(path)
    lines = [problem.line for problem in caught.value.problems]
    assert lines == [0, 2, 3, 4, 6, 7]
    assert "b.jpg has no product with a grade above 0" in str(caught.value)


def test_the_grade_is_optional(tmp_path: Path) -> None:
    assert read_queries(write(tmp_path, "product_id,image\np1,a.jpg\n"))[0].grades == {"p1": 1.0}
