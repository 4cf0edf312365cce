"""The parts of a training job that need no S3: logs, reasons, names, ETags, recipes as text."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from magpie.errors import FailedPrecondition, InvalidArgument, MagpieError, NotFound, Unavailable
from training.job import aws, outcome, s3_folder
from training.job.entry import parse
from training.job.recipe_text import toml
from training.job.s3_folder import PART_BYTES, S3Folder
from training.job.trainer_process import TrainerProcess


def started(script: str, tmp_path: Path, *, pause: float = 3600) -> tuple[TrainerProcess, list[str]]:
    said: list[str] = []
    return TrainerProcess(
        [sys.executable, "-c", script], tmp_path / "log.txt", said.append, pause=pause
    ), said


def test_every_line_is_logged_and_a_progress_bar_once_in_a_while(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "print('began')\n"
        "for i in range(50): sys.stderr.write(f'\\repoch 1: {i} of 50')\n"
        "sys.stderr.write('\\repoch 1: 50 of 50\\n')\n"
        "print('windows line', end='\\r\\n')\n"
        "print('error: no bell, b\\u00fccher')\n"
        "sys.stdout.write('no newline')\n"
    )
    process, said = started(script, tmp_path)
    assert process.code() == 0
    expected = ["began", "epoch 1: 0 of 50", "epoch 1: 50 of 50", "windows line", "error: no bell, bücher"]
    assert said == [*expected, "no newline"]
    assert (tmp_path / "log.txt").read_text().splitlines() == said
    assert list(process.last_lines) == said


def test_a_log_is_continued(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("attempt 1\n")
    process, _ = started("print('attempt 2')", tmp_path)
    process.code()
    assert (tmp_path / "log.txt").read_text() == "attempt 1\nattempt 2\n"


def test_a_trainer_that_ignores_the_question_is_killed_with_its_loaders(tmp_path: Path) -> None:
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "loader = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(loader.pid)\n"
        "time.sleep(600)\n"
    )
    process, said = started(script, tmp_path)
    while not said:
        time.sleep(0.02)
    process.ask_to_end()
    time.sleep(0.2)
    assert process.running()
    process.kill()
    assert process.code() == -9
    give_up = time.monotonic() + 10
    while _alive(int(said[0])):
        assert time.monotonic() < give_up
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("code", "lines", "reason"),
    [
        (1, ["began", "error: juice: has one picture", ""], "juice: has one picture"),
        (1, ["Traceback (most recent call last):", "RuntimeError: CUDA out of memory"], "CUDA out of memory"),
        (2, [], "said nothing"),
        (-9, ["epoch 1"], "memory"),
        (-11, ["epoch 1"], "SIGSEGV"),
    ],
)
def test_a_reason_is_what_the_trainer_said_last(code: int, lines: list[str], reason: str) -> None:
    assert reason in outcome.reason_of(code, lines)


def test_a_report_names_the_job_and_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BATCH_JOB_ID", "1-2-3")
    monkeypatch.setenv("AWS_BATCH_JOB_ATTEMPT", "2")
    report = json.loads(outcome.failed("why", ["last"]))
    assert (report["job"], report["attempt"]) == ("1-2-3", "2")
    assert (report["reason"], report["last_lines"]) == ("why", ["last"])


@pytest.mark.parametrize(
    "text", ["", "bucket/folder", "s3://bucket", "s3://bucket/", "s3:///folder", "http://a/b"]
)
def test_what_is_no_folder_in_s3_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="s3://BUCKET/FOLDER"):
        S3Folder.parse(text)


def test_a_folder_reads_back_as_it_is_written() -> None:
    folder = S3Folder.parse("s3://bucket/training/run/")
    assert folder == S3Folder.parse(str(folder)) == S3Folder("bucket", "training/run/")
    assert folder.key("log.txt") == "training/run/log.txt"


def test_an_etag_is_the_md5_of_the_bytes_or_of_the_parts_md5s(tmp_path: Path) -> None:
    data = os.urandom(PART_BYTES + 1000)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert s3_folder.etag(path, like="abc") == hashlib.md5(data).hexdigest()
    parts = hashlib.md5(data[:PART_BYTES]).digest() + hashlib.md5(data[PART_BYTES:]).digest()
    assert s3_folder.etag(path, like="abc-2") == hashlib.md5(parts).hexdigest() + "-2"


def test_half_written_and_hidden_files_stay_here(tmp_path: Path) -> None:
    for name in ("a.pt", "b/c.txt", "checkpoint.partial", "b/.cache", ".git/head"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert s3_folder.files_of(tmp_path) == ["a.pt", "b/c.txt"]


values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_a_recipe_reads_back_as_it_was(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml(table)) == table


def test_the_recipes_that_ship_read_back_as_they_were() -> None:
    paths = list((Path(outcome.__file__).parents[1] / "recipes").glob("*.toml"))
    assert paths
    for path in paths:
        table = tomllib.loads(path.read_text())
        assert tomllib.loads(toml(table)) == table


def refusal(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exceptions.NoCredentialsError(), FailedPrecondition),
        (exceptions.NoRegionError(), FailedPrecondition),
        (exceptions.EndpointConnectionError(endpoint_url="http://s3"), Unavailable),
        (exceptions.ReadTimeoutError(endpoint_url="http://s3"), Unavailable),
        (exceptions.ProfileNotFound(profile="shop"), MagpieError),
        (refusal("404", 404), NotFound),
        (refusal("NoSuchBucket", 404), FailedPrecondition),
        (refusal("SlowDown", 503), Unavailable),
        (refusal("ThrottlingException"), Unavailable),
        (refusal("InternalError", 500), Unavailable),
        (refusal("AccessDenied", 403), MagpieError),
    ],
)
def test_what_aws_answers_becomes_an_error_of_ours(error: Exception, kind: type[MagpieError]) -> None:
    with pytest.raises(MagpieError, match=r"^the data: ") as caught, aws.answers("the data"):
        raise error
    assert type(caught.value) is kind


def test_the_command_line_of_a_job(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGPIE_JOB_WORK", "/srv/magpie/job")
    arguments = ["--run", "s3://b/training/r", "--data", "s3://b/data/d", "--", "embedding", "--set", "a=b"]
    job = parse(arguments)
    assert job.arguments == ("embedding", "--set", "a=b")
    assert (job.run_dir, job.data_dir) == (Path("/srv/magpie/job/run"), Path("/srv/magpie/job/data"))
    assert job.trainer[1:] == ("-m", "training.job.trainer")
    with pytest.raises(SystemExit) as refused:
        parse(["--run", "training/r", "--data", "s3://b/data/d", "embedding"])
    assert refused.value.code == 2
    assert "s3://BUCKET/FOLDER" in capsys.readouterr().err
