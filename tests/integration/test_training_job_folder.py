"""A folder in S3 and its copy here, against a real S3: what travels, what does not, what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from magpie.errors import FailedPrecondition, InvalidArgument, NotFound
from training.job import s3_folder
from training.job.run_upload import RunUpload
from training.job.s3_folder import PART_BYTES, S3Folder, Transfer


@pytest.fixture
def folder(bucket: str) -> S3Folder:
    return S3Folder(bucket, "data/shop/")


def filled(root: Path, count: int = 60) -> dict[str, bytes]:
    files = {f"{number % 7}/{number}.jpg": os.urandom(100 + number) for number in range(count)}
    files["large.bin"] = os.urandom(2 * PART_BYTES + 12345)  # goes up in three parts
    files["empty.txt"] = b""
    for name, body in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    return files


def contents(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in s3_folder.files_of(root)}


def test_there_and_back_and_only_what_differs(s3: Any, folder: S3Folder, tmp_path: Path) -> None:
    here, copy = tmp_path / "here", tmp_path / "copy"
    files = filled(here)
    size = sum(map(len, files.values()))
    states: list[Transfer] = []
    sent = s3_folder.push(s3, here, files, folder, watch=states.append)
    assert sent == Transfer(len(files), size, len(files), size)
    assert states[0] == Transfer(len(files), size)
    assert [state.size_done for state in states] == sorted(state.size_done for state in states)
    assert s3_folder.push(s3, here, files, folder) == Transfer(unchanged=len(files))

    fetched = s3_folder.fetch(s3, folder, copy)
    assert fetched.files_done == len(files)
    assert contents(copy) == files
    # What an interruption, a bad disk and somebody's hand leave: missing, other bytes, files in the way.
    (copy / "3" / "3.jpg").unlink()
    (copy / "large.bin").write_bytes(os.urandom(len(files["large.bin"])))
    (copy / "0" / "extra.jpg").touch()
    (copy / "half.jpg.partial").write_bytes(b"ha")
    again = s3_folder.fetch(s3, folder, copy)
    assert (again.files, again.unchanged) == (2, len(files) - 2)
    assert contents(copy) == files
    assert not (copy / "half.jpg.partial").exists()


def test_a_fetch_that_fails_half_way_leaves_no_half_file(s3: Any, folder: S3Folder, tmp_path: Path) -> None:
    here = tmp_path / "here"
    files = filled(here)
    s3_folder.push(s3, here, files, folder)

    class Gone(Exception):
        pass

    def watch(state: Transfer) -> None:
        if state.files_done >= 20:
            raise Gone

    with pytest.raises(Gone):
        s3_folder.fetch(s3, folder, tmp_path / "copy", watch=watch)
    there = contents(tmp_path / "copy")
    assert 20 <= len(there) < len(files)
    assert all(files[name] == body for name, body in there.items())
    rest = s3_folder.fetch(s3, folder, tmp_path / "copy")
    assert rest.unchanged == len(there)
    assert contents(tmp_path / "copy") == files


def test_names_that_lead_outside_are_refused_before_anything_is_written(
    s3: Any, folder: S3Folder, tmp_path: Path
) -> None:
    s3.put_object(Bucket=folder.bucket, Key=folder.key("a/../../../evil.txt"), Body=b"x")
    with pytest.raises(InvalidArgument, match="no name that a file here can have"):
        s3_folder.fetch(s3, folder, tmp_path / "deep" / "copy")
    assert not (tmp_path / "evil.txt").exists()


def test_folder_markers_are_no_files_and_similar_prefixes_no_neighbours(
    s3: Any, folder: S3Folder, tmp_path: Path
) -> None:
    s3.put_object(Bucket=folder.bucket, Key="data/shop/", Body=b"")
    s3.put_object(Bucket=folder.bucket, Key="data/shop/in/", Body=b"")
    s3.put_object(Bucket=folder.bucket, Key="data/shop-2/a.txt", Body=b"x")
    assert s3_folder.listing(s3, folder) == {}
    with pytest.raises(NotFound):
        s3_folder.read(s3, folder, "in/none.txt")
    with pytest.raises(FailedPrecondition, match="no such bucket"):
        s3_folder.listing(s3, S3Folder("there-is-no-such-bucket", "data/"))


def test_a_run_goes_up_as_it_changes_its_checkpoint_last(s3: Any, bucket: str, tmp_path: Path) -> None:
    order: list[str] = []
    s3.meta.events.register(
        "provide-client-params.s3.PutObject", lambda params, **_: order.append(params["Key"].split("/")[-1])
    )
    run, folder = tmp_path / "run", S3Folder(bucket, "training/a/")
    run.mkdir()
    (run / "submitted.toml").write_text("seed = 1")
    upload = RunUpload(s3, folder, run, tmp_path / "staging")  # what is there came from S3
    assert upload.now() == []
    (run / "checkpoint.pt").write_bytes(b"weights 1")
    (run / "checkpoint.partial").write_bytes(b"weights 2, half of th")
    (run / "metrics.jsonl").write_text("{}\n")
    order.clear()
    assert set(upload.now()) == {"checkpoint.pt", "metrics.jsonl"}
    assert order == ["metrics.jsonl", "checkpoint.pt"]
    with (run / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    assert upload.now() == ["metrics.jsonl"]
    assert upload.now() == []
    assert s3_folder.read(s3, folder, "metrics.jsonl") == b"{}\n{}\n"
    assert not (tmp_path / "staging").exists()
    # A failed upload is tried again: nothing is taken for sent.
    (run / "checkpoint.pt").write_bytes(b"weights 3")
    elsewhere = RunUpload(s3, S3Folder("there-is-no-such-bucket", "training/"), run, tmp_path / "staging")
    (run / "checkpoint.pt").write_bytes(b"weights 4!")
    for _ in range(2):
        with pytest.raises(Exception, match=r"checkpoint\.pt"):
            elsewhere.now()
