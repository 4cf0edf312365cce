"""The job's entry point as a process, a real training, a real S3: killed or interrupted, it loses nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from training.job import entry, outcome

ROOT = Path(__file__).resolve().parents[2]
TRAINER = f"{sys.executable} {Path(__file__).with_name('tiny_trainer.py')}"


class Place:
    """A data set and a run folder of the test's own in S3, and a scratch folder here."""

    def __init__(self, s3: Any, bucket: str, url: str, work: Path) -> None:
        self.s3, self.bucket, self.work = s3, bucket, work
        self.prefix = f"training/run-{uuid.uuid4().hex[:8]}"
        self.environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT}",
        }
        rows = io.BytesIO()
        np.save(rows, np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32))
        self.put("data/numbers/rows.npy", rows.getvalue())

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def read(self, name: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")["Body"].read()
        return body

    def names(self) -> set[str]:
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix).get("Contents", [])
        return {item["Key"].removeprefix(f"{self.prefix}/") for item in found}

    def start(self, *arguments: str, every: float = 0.1) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "training.job.entry", "--run", f"s3://{self.bucket}/{self.prefix}"]
        command += ["--data", f"s3://{self.bucket}/data/numbers", "--work", str(self.work)]
        command += ["--every", str(every), "--grace", "5", "--trainer", TRAINER, "--", *arguments]
        output = subprocess.PIPE
        return subprocess.Popen(
            command, env=self.environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def steps(self) -> int:
        """How many steps the metrics in S3 have."""
        return len(self.read("metrics.jsonl").splitlines()) if "metrics.jsonl" in self.names() else 0

    def weights(self) -> dict[str, torch.Tensor]:
        state = torch.load(io.BytesIO(self.read("checkpoint.pt")), weights_only=False)
        task: dict[str, torch.Tensor] = state["task"]
        return task


@pytest.fixture
def place(s3: Any, bucket: str, local_aws: str, tmp_path: Path) -> Place:
    return Place(s3, bucket, local_aws, tmp_path / "work")


@pytest.fixture(scope="module")
def whole(
    s3: Any, local_aws: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights and metrics of a run that nobody interrupts."""
    name = f"test-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name)
    place = Place(s3, name, local_aws, tmp_path_factory.mktemp("whole") / "work")
    code, said = place.run("train")
    assert code == entry.DONE, said
    done = json.loads(place.read(outcome.DONE))
    assert {"checkpoint.pt", "metrics.jsonl", "log.txt", entry.DATA_SEEN} <= set(done["files"])
    assert set(done["files"]) | {outcome.DONE} == place.names()
    return place.weights(), place.read("metrics.jsonl").decode().splitlines()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.05)


def assert_equal(place: Place, whole: tuple[dict[str, torch.Tensor], list[str]]) -> None:
    weights, metrics = whole
    found = place.weights()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    # Every step once, in order, with the same losses (times aside, which a run may record).
    steps = [(r["epoch"], r["step"], r.get("error")) for r in map(json.loads, metrics)]
    lines = place.read("metrics.jsonl").decode().splitlines()
    assert [(r["epoch"], r["step"], r.get("error")) for r in map(json.loads, lines)] == steps


def test_a_killed_job_whose_disk_is_lost_ends_with_the_same_weights(
    place: Place, whole: tuple[dict[str, torch.Tensor], list[str]]
) -> None:
    process = place.start("train", "--step-seconds", "0.05")
    wait_for(lambda: place.steps() >= 14, "no metrics came to S3")
    trainers = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert trainers
    psutil.wait_procs(trainers, timeout=10)
    assert not any(trainer.is_running() for trainer in trainers)  # nobody writes on, unseen
    reached = place.steps()
    assert outcome.DONE not in place.names()

    shutil.rmtree(place.work)
    code, said = place.run("train")
    assert code == entry.DONE, said
    assert "resumes: " in said
    assert reached < len(whole[1])
    assert_equal(place, whole)


def test_a_job_that_is_asked_to_end_uploads_its_state_and_asks_for_another_attempt(
    place: Place, whole: tuple[dict[str, torch.Tensor], list[str]]
) -> None:
    process = place.start("train", "--step-seconds", "0.1", every=3600)  # nothing goes up by the clock
    checkpoint = place.work / "run" / "checkpoint.pt"
    wait_for(checkpoint.exists, "no checkpoint was written")
    process.terminate()
    said, _ = process.communicate(timeout=30)
    assert process.returncode == entry.TRY_AGAIN, said
    assert "another attempt goes on" in said
    assert {"checkpoint.pt", "metrics.jsonl", "log.txt"} <= place.names()
    assert not {outcome.DONE, outcome.FAILED} & place.names()

    shutil.rmtree(place.work)
    code, said = place.run("train")
    assert code == entry.DONE, said
    assert_equal(place, whole)


def test_a_trainer_that_fails_says_why_in_the_run_folder(place: Place) -> None:
    code, said = place.run("fail")
    assert code == entry.FAILED, said
    failed = json.loads(place.read(outcome.FAILED))
    assert failed["reason"] == "juice: has one picture, a class needs two"
    assert failed["last_lines"] == ["began", "error: juice: has one picture, a class needs two"]
    assert "began" in place.read("log.txt").decode()
    # Once the cause is gone the same run can be sent again.
    code, said = place.run("train")
    assert code == entry.DONE, said


def test_a_missing_data_set_is_said_in_the_run_folder(place: Place) -> None:
    place.s3.delete_object(Bucket=place.bucket, Key="data/numbers/rows.npy")
    code, _ = place.run("train")
    assert code == entry.FAILED
    assert "there is no data" in json.loads(place.read(outcome.FAILED))["reason"]


def test_a_run_does_not_go_on_with_other_data(place: Place) -> None:
    process = place.start("train", "--step-seconds", "0.1")
    wait_for(lambda: "checkpoint.pt" in place.names(), "no checkpoint came to S3")
    process.terminate()
    process.communicate(timeout=30)
    place.put("data/numbers/more.txt", b"a picture that was not there before")
    code, _ = place.run("train")
    assert code == entry.FAILED
    assert "has changed since" in json.loads(place.read(outcome.FAILED))["reason"]


def test_a_finished_run_is_left_alone_and_files_of_the_run_folder_reach_the_trainer(place: Place) -> None:
    place.put(f"{place.prefix}/submitted.toml", b"epochs = 6\n")
    code, said = place.run("train", "--recipe", f"s3://{place.bucket}/{place.prefix}/submitted.toml")
    assert code == entry.DONE
    assert "recipe: epochs = 6" in said
    before = place.read("checkpoint.pt")
    code, said = place.run("train")
    assert (code, place.read("checkpoint.pt")) == (entry.DONE, before)
    assert "is done already" in said


def test_a_folder_of_somebody_else_is_not_overwritten(place: Place) -> None:
    place.work.mkdir()
    (place.work / "thesis.txt").write_text("years of work")
    code, said = place.run("train")
    assert code == entry.FAILED
    assert "no work folder of a job" in said
    assert (place.work / "thesis.txt").read_text() == "years of work"
