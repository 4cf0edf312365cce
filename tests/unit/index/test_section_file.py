"""Files of named arrays: what goes in comes out, and damage anywhere is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from magpie.index.section_file import Damaged, SectionFile, SectionWriter

RECORD = np.dtype([("vector", "i1", (3,)), ("scale", "<f4")])


def write(path: Path) -> dict[str, np.ndarray]:
    records = np.zeros(5, RECORD)
    records["vector"] = np.arange(15).reshape(5, 3)
    records["scale"] = np.linspace(0, 1, 5)
    arrays = {
        "planes": np.arange(12, dtype=np.uint64).reshape(2, 6),
        "records": records,
        "none": np.empty(0, np.float64),
    }
    with SectionWriter(path, {"generation": 3}) as file:
        file.add("planes", arrays["planes"])
        file.add_blocks("records", [records[:2], records[2:]], RECORD)
        file.add("none", arrays["none"])
    return arrays


def test_arrays_and_facts_come_back(tmp_path: Path) -> None:
    arrays = write(tmp_path / "file")
    file = SectionFile(tmp_path / "file")
    file.check()
    assert file.facts == {"generation": 3}
    for name, array in arrays.items():
        assert file.array(name).dtype == array.dtype
        assert file.array(name).shape == array.shape
        assert file.array(name).tobytes() == array.tobytes()
    rows = np.array([4, 0, 4])
    assert file.read_rows("records", rows).tobytes() == arrays["records"][rows].tobytes()
    assert file.read_bytes("planes", 8, 24) == arrays["planes"].tobytes()[8:24]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_damaged_byte_of_an_array_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "file"
    arrays = write(path)
    whole = path.read_bytes()
    for array in (arrays["planes"], arrays["records"]):
        start = whole.index(array.tobytes())
        for at in range(start, start + array.nbytes):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(Damaged):
                SectionFile(path).check()


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    write(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(Damaged):
        SectionFile(path)


def test_a_damaged_table_of_contents_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path)
    whole = path.read_bytes()
    at = whole.index(b'"generation"')
    path.write_bytes(whole[: at + 1] + b"G" + whole[at + 2 :])
    with pytest.raises(Damaged, match="table of contents"):
        SectionFile(path)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), SectionWriter(tmp_path / "file", {}) as file:
        file.add("planes", np.arange(3))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
