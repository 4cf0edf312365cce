"""Room on a disk of a thousand bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from magpie.store.snapshot_disk import free_bytes, make_room

NAMES = ("a/default@1/2-0.snapshot", "a/default@1/1-0.snapshot", "b/x@1/7-0.snapshot")


def free(folder: Path) -> int:
    return 1000 - sum(path.stat().st_size for path in folder.rglob("*.snapshot"))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Three snapshots of 300 bytes, of two customers; `b`'s was opened longest ago."""
    for age, name in enumerate(NAMES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 300)
        os.utime(path, (1000 - age, 1000 - age))
    return tmp_path


def kept(disk: Path) -> list[str]:
    return sorted(str(path.relative_to(disk)) for path in disk.rglob("*.snapshot"))


@pytest.mark.parametrize(("wanted", "left"), [(100, 3), (101, 2), (400, 2), (401, 1), (1000, 0), (5000, 0)])
def test_those_opened_longest_ago_go_and_no_more_than_need_be(disk: Path, wanted: int, left: int) -> None:
    make_room(disk, wanted, free)
    assert kept(disk) == sorted(NAMES[:left])


def test_a_removed_one_can_be_read_by_who_has_it_open(disk: Path) -> None:
    with (disk / "b/x@1/7-0.snapshot").open("rb") as reader:
        make_room(disk, 1000, free)
        assert not kept(disk)
        assert reader.read() == b"x" * 300


def test_the_real_disk_and_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    make_room(tmp_path / "new", 1)
    assert free_bytes(tmp_path / "new") > 1
