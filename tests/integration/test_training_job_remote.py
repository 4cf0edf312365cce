"""Runs sent to AWS Batch: a local S3, CloudFormation, ECR and CloudWatch Logs take part for real.

The local Batch takes jobs, lists them and calls each one done at once; it runs nothing. So what a job is told
is checked where Batch is called (against botocore's own model of it), and read by the entry point.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from botocore.stub import ANY, Stubber
from click.testing import CliRunner
from PIL import Image

from local import aws_server, ports
from magpie.errors import FailedPrecondition, InvalidArgument, NotFound
from tests.unit.training import tiny_shop
from training import recipe_file
from training.commands.remote import command as remote_command
from training.embedding.recipe import EmbeddingRecipe, read_recipe
from training.embedding.train import train
from training.job import aws, command, entry, outcome, remote, s3_folder, stack
from training.job.command import Remote, submit_embedding
from training.job.s3_folder import S3Folder
from training.job.stack import TrainingStack

ROOT = Path(__file__).resolve().parents[2]
SERVICES = "s3,batch,cloudformation,ecr,logs"
RECIPE = """
taxonomy = ["category"]
level_weights = [0.5, 1.0]
domains = ["category"]
[[data]]
data = "shop/catalogue.csv"
"""


@pytest.fixture(scope="module")
def training_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A local AWS that boto3 finds by itself, as it finds the real one."""
    folder = tmp_path_factory.mktemp("aws")
    port = ports.free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {**aws_server.environment(port, folder), "SERVICES": SERVICES}
    names = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    names["AWS_DEFAULT_REGION"] = settings["MINISTACK_REGION"]
    with pytest.MonkeyPatch.context() as patch, (folder / "aws.log").open("wb") as log:
        for name, value in names.items():
            patch.setenv(name, value)
        server = subprocess.Popen(
            aws_server.command(), env={**os.environ, **settings}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            give_up = time.monotonic() + 30
            while aws_server.probe(url):
                assert server.poll() is None and time.monotonic() < give_up, "the local AWS did not start"
                time.sleep(0.05)
            yield
        finally:
            server.terminate()
            server.wait(timeout=30)


def deploy(name: str, *, training: bool = True, image: bool = True) -> None:
    """A stack with the outputs of template.yaml, and what they name."""
    batch = aws.client("batch")
    queue = batch.create_job_queue(jobQueueName=f"{name}-training", priority=1, computeEnvironmentOrder=[])
    outputs = {"BucketName": {"Ref": "Bucket"}}
    resources: dict[str, Any] = {
        "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": f"{name}-bucket"}}
    }
    if training:
        outputs |= {
            "TrainingQueue": queue["jobQueueArn"],
            "TrainingJob": f"{name}-training:1",
            "TrainingRepository": f"123.dkr.ecr.eu-central-1.amazonaws.com/{name}-training",
            "TrainingLogGroup": f"/magpie/{name}/training",
        }
        aws.client("ecr").create_repository(repositoryName=f"{name}-training")
        aws.client("logs").create_log_group(logGroupName=f"/magpie/{name}/training")
    body = {"Resources": resources, "Outputs": {key: {"Value": value} for key, value in outputs.items()}}
    formation = aws.client("cloudformation")
    formation.create_stack(StackName=name, TemplateBody=json.dumps(body))
    formation.get_waiter("stack_create_complete").wait(
        StackName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 100}
    )
    if training and image:
        aws.client("ecr").put_image(repositoryName=f"{name}-training", imageManifest="{}", imageTag="latest")


@pytest.fixture
def place(training_aws: None) -> TrainingStack:
    """A stack of the test's own that is ready to train."""
    name = f"shop-{uuid.uuid4().hex[:8]}"
    deploy(name)
    return stack.find(name)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of data sets: two pictures of a shop, and another data set that no recipe names."""
    root = tmp_path / "photos"
    (root / "shop").mkdir(parents=True)
    (root / "other").mkdir()
    (root / "other" / "large.bin").write_bytes(bytes(1000))
    rows = ["product_id,image,category"]
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "shop" / f"{number}.jpg")
        rows.append(f"sku-{number},{number}.jpg,Juice")
    (root / "shop" / "catalogue.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with a base, which lies on this machine alone."""
    (tmp_path / "base.toml").write_text(RECIPE)
    path = tmp_path / "mine.toml"
    path.write_text('base = "base.toml"\nseed = 5\n')
    return path


def keys(place: TrainingStack, prefix: str) -> set[str]:
    return set(s3_folder.listing(aws.client("s3"), S3Folder(place.bucket, prefix)))


class TestSending:
    def test_a_local_folder_is_uploaded_as_far_as_the_recipe_reads_it_and_the_run_is_sent(
        self, place: TrainingStack, photos: Path, recipe: Path
    ) -> None:
        run, state = submit_embedding(recipe, {"seed": "7"}, photos, Remote(place.name, upload=True))
        assert state is None
        assert run.folder == f"s3://{place.bucket}/training/mine"
        assert keys(place, "data/photos/") == {"shop/catalogue.csv", "shop/0.jpg", "shop/1.jpg"}
        assert keys(place, "training/mine/") == {remote.RECIPE, remote.SUBMISSION}
        (job,) = aws.client("batch").list_jobs(jobQueue=place.queue, jobStatus="SUCCEEDED")["jobSummaryList"]
        assert (job["jobName"], job["jobId"]) == ("mine", run.job)

    def test_only_what_has_changed_is_uploaded_again(
        self, place: TrainingStack, photos: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        submit_embedding(recipe, {}, photos, Remote(place.name, run="one", upload=True))
        (photos / "shop" / "2.jpg").write_bytes((photos / "shop" / "1.jpg").read_bytes())
        capsys.readouterr()
        submit_embedding(recipe, {}, photos, Remote(place.name, run="two", upload=True))
        assert "1 files sent, 3 were there" in capsys.readouterr().err
        (photos / "shop" / "2.jpg").unlink()
        submit_embedding(recipe, {}, photos, Remote(place.name, run="three", upload=True))
        assert "such as shop/2.jpg: they stay" in capsys.readouterr().err

    def test_what_batch_is_told_the_entry_point_understands(
        self, place: TrainingStack, photos: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: dict[str, Any] = {}
        batch = aws.client("batch")
        batch.meta.events.register(
            "provide-client-params.batch.SubmitJob", lambda params, **_: told.update(params)
        )
        real = aws.client
        monkeypatch.setattr(aws, "client", lambda service: batch if service == "batch" else real(service))
        submit_embedding(recipe, {"seed": "7"}, photos, Remote(place.name, upload=True))
        assert told["jobQueue"] == place.queue
        assert told["jobDefinition"] == place.definition
        job = entry.parse(told["containerOverrides"]["command"])
        assert str(job.run) == f"s3://{place.bucket}/training/mine"
        assert str(job.data) == f"s3://{place.bucket}/data/photos"
        address = f"{job.run}/{remote.RECIPE}"
        assert job.arguments == ("embedding", "--recipe", address, "--no-track", "--set", "seed=7")
        # The recipe there is whole: what it was based on is in it.
        sent = recipe.with_name("sent.toml")
        sent.write_bytes(s3_folder.read(aws.client("s3"), job.run, remote.RECIPE))
        assert recipe_file.read(EmbeddingRecipe, sent) == recipe_file.read(EmbeddingRecipe, recipe)

    def test_a_run_goes_on_with_what_it_began_with_alone(
        self, place: TrainingStack, photos: Path, recipe: Path
    ) -> None:
        options = Remote(place.name, upload=True)
        submit_embedding(recipe, {}, photos, options)
        run = place.run("mine")
        s3_folder.write(aws.client("s3"), run, "checkpoint.pt", b"weights")
        s3_folder.write(aws.client("s3"), run, outcome.FAILED, outcome.failed("the disk is full"))
        again, _ = submit_embedding(recipe, {}, photos, options)
        assert again.resumes
        assert outcome.FAILED not in keys(place, run.prefix)  # it speaks of an attempt that is past
        with pytest.raises(FailedPrecondition, match="other settings"):
            submit_embedding(recipe, {"seed": "9"}, photos, options)
        s3_folder.write(aws.client("s3"), run, outcome.DONE, outcome.done(1.0, {}))
        with pytest.raises(FailedPrecondition, match="is done"):
            submit_embedding(recipe, {}, photos, options)

    def test_a_run_that_is_under_way_is_not_sent_twice(
        self, place: TrainingStack, photos: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        submit_embedding(recipe, {}, photos, Remote(place.name, run="other", upload=True))
        batch = stubbed("batch", monkeypatch)
        batch.add_response("list_jobs", {"jobSummaryList": [summary("mine", "RUNNABLE")]})
        with batch, pytest.raises(FailedPrecondition, match="under way"):
            submit_embedding(recipe, {}, photos, Remote(place.name))


class TestRefusals:
    def test_no_stack_no_training_no_image(self, training_aws: None, photos: Path, recipe: Path) -> None:
        with pytest.raises(NotFound, match="there is no stack nowhere"):
            submit_embedding(recipe, {}, photos, Remote("nowhere"))
        plain, bare = f"plain-{uuid.uuid4().hex[:6]}", f"bare-{uuid.uuid4().hex[:6]}"
        deploy(plain, training=False)
        with pytest.raises(FailedPrecondition, match="Training=on"):
            submit_embedding(recipe, {}, photos, Remote(plain))
        deploy(bare, image=False)
        with pytest.raises(FailedPrecondition, match="make training-image"):
            submit_embedding(recipe, {}, photos, Remote(bare))

    def test_no_data_no_recipe_no_such_setting_no_name(
        self, place: TrainingStack, photos: Path, recipe: Path
    ) -> None:
        with pytest.raises(NotFound, match="add --upload"):
            submit_embedding(recipe, {}, photos, Remote(place.name))
        with pytest.raises(InvalidArgument, match="No such file"):
            submit_embedding(recipe.with_name("none.toml"), {}, photos, Remote(place.name))
        with pytest.raises(InvalidArgument, match="did you mean `seed`"):
            submit_embedding(recipe, {"sed": "1"}, photos, Remote(place.name))
        with pytest.raises(InvalidArgument, match="--run"):
            submit_embedding(recipe, {}, photos, Remote(place.name, run="a/b"))
        with pytest.raises(InvalidArgument, match="reads what lies below"):
            submit_embedding(recipe, {}, "s3://elsewhere/data/photos", Remote(place.name))
        with pytest.raises(InvalidArgument, match="start"):
            submit_embedding(recipe, {"start": "runs/old"}, photos, Remote(place.name))
        assert not keys(place, "training/")


def summary(name: str, status: str, job: str = "job-1") -> dict[str, Any]:
    return {"jobName": name, "jobId": job, "status": status, "createdAt": 1_700_000_000_000}


def detail(status: str, stream: str = "", **more: Any) -> dict[str, Any]:
    container = {"logStreamName": stream} if stream else {}
    job = {"jobName": "mine", "jobId": "job-1", "status": status, "container": container, **more}
    return {"jobs": [{**job, "jobQueue": "q", "jobDefinition": "d", "startedAt": 0}]}


def stubbed(service: str, monkeypatch: pytest.MonkeyPatch) -> Stubber:
    """A client of one service whose answers are scripted, checked against the service's model."""
    real, client = aws.client, aws.client(service)
    monkeypatch.setattr(aws, "client", lambda name: client if name == service else real(name))
    return Stubber(client)


class TestFollowing:
    def test_states_and_the_log_of_every_attempt_are_told_until_the_end(
        self, place: TrainingStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logs = aws.client("logs")
        for stream, lines in (("run/a", ["epoch 1", "interrupted"]), ("run/b", ["resumes", "error: juice"])):
            logs.create_log_stream(logGroupName=place.log_group, logStreamName=stream)
            events = [{"timestamp": int(time.time() * 1000) + i, "message": m} for i, m in enumerate(lines)]
            logs.put_log_events(logGroupName=place.log_group, logStreamName=stream, logEvents=events)
        s3_folder.write(
            aws.client("s3"), place.run("mine"), outcome.FAILED, outcome.failed("juice has one picture")
        )
        first = {"container": {"logStreamName": "run/a", "exitCode": entry.TRY_AGAIN}}
        batch = stubbed("batch", monkeypatch)
        jobs = [summary("mine", "FAILED", "job-0") | {"createdAt": 1}, summary("mine", "RUNNABLE")]
        batch.add_response(
            "list_jobs",
            {"jobSummaryList": jobs},
            {"jobQueue": place.queue, "filters": [{"name": "JOB_NAME", "values": ["mine"]}]},
        )
        for answer in (
            detail("RUNNABLE"),
            detail("RUNNING", "run/a"),
            detail("RUNNABLE", attempts=[first], statusReason="Host EC2 (i-1) terminated."),
            detail("RUNNING", "run/b", attempts=[first]),
            detail("FAILED", "run/b", attempts=[first], statusReason="Essential container in task exited"),
        ):
            batch.add_response("describe_jobs", answer, {"jobs": ["job-1"]})
        said: list[str] = []
        with batch:
            state = remote.follow(place, "mine", said.append, every=0.01)
            batch.assert_no_pending_responses()
        assert (state.status, state.reason) == ("FAILED", "juice has one picture")
        lines = [line for line in said if not line.startswith("---")]
        assert lines == ["epoch 1", "interrupted", "resumes", "error: juice"]
        states = [line.split()[1].rstrip(":") for line in said if line.startswith("---")]
        assert states == ["RUNNABLE", "RUNNING", "RUNNABLE", "RUNNING", "FAILED"]
        assert "Host EC2" in said[said.index("interrupted") + 1]

    def test_following_a_run_that_ended_tells_how(
        self, place: TrainingStack, photos: Path, recipe: Path
    ) -> None:
        run, state = submit_embedding(recipe, {}, photos, Remote(place.name, upload=True, follow=True))
        assert state == remote.RunState("mine", run.job, "DONE")
        with pytest.raises(NotFound):
            remote.follow(place, "never-sent", print, every=0.01)

    def test_cancelling_ends_what_is_under_way(
        self, place: TrainingStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch = stubbed("batch", monkeypatch)
        jobs = [
            summary("mine", "FAILED", "job-0"),
            summary("mine", "RUNNING"),
            summary("mine2", "RUNNING", "x"),
        ]
        batch.add_response("list_jobs", {"jobSummaryList": jobs})
        batch.add_response("terminate_job", {}, {"jobId": "job-1", "reason": ANY})
        batch.add_response("list_jobs", {"jobSummaryList": []})
        with batch:
            assert remote.cancel(place, "mine") == ["job-1"]
            with pytest.raises(NotFound, match="not under way"):
                remote.cancel(place, "mine")


def test_runs_are_listed_and_fetched_by_the_command_line(
    place: TrainingStack, photos: Path, recipe: Path, tmp_path: Path
) -> None:
    for name in ("done", "failed", "stopped"):
        submit_embedding(recipe, {}, photos, Remote(place.name, run=name, upload=True))
    s3 = aws.client("s3")
    s3_folder.write(s3, place.run("done"), outcome.DONE, outcome.done(2.0, {}))
    s3_folder.write(s3, place.run("failed"), outcome.FAILED, outcome.failed("loss is nan"))
    s3_folder.write(s3, place.run("stopped"), "checkpoint.pt", b"weights")
    runner = CliRunner()
    answer = runner.invoke(remote_command, ["list", "--stack", place.name, "--json"], catch_exceptions=False)
    states = {run["name"]: (run["status"], run["reason"]) for run in json.loads(answer.stdout)["runs"]}
    assert states == {
        "done": ("DONE", ""),
        "failed": ("FAILED", "loss is nan"),
        "stopped": ("STOPPED", "send it again to go on"),
    }
    out = tmp_path / "run"
    arguments = ["fetch", "stopped", "--stack", place.name, "--out", str(out)]
    assert runner.invoke(remote_command, arguments, catch_exceptions=False).exit_code == 0
    assert (out / "checkpoint.pt").read_bytes() == b"weights"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FailedPrecondition, match="something else"):
        remote.fetch(place, "stopped", tmp_path / "mine", lambda _: None)


def test_the_remote_options_go_with_remote_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Remote | None] = []

    @click.command()
    @command.remote_options
    def train(remote: Remote | None) -> None:
        given.append(remote)

    runner = CliRunner()
    assert runner.invoke(train, []).exit_code == 0
    assert runner.invoke(train, ["--remote", "--run", "a", "--follow", "--stack", "s"]).exit_code == 0
    assert given == [None, Remote("s", "a", upload=False, follow=True)]
    refused = runner.invoke(train, ["--upload"])
    assert refused.exit_code == 2
    assert "go with --remote" in refused.output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_real_trainer_sent_killed_sent_again_and_fetched_ends_as_it_does_here(
    place: TrainingStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_shop.make(tmp_path / "tiny")
    recipe = tmp_path / "shop.toml"
    (data / "recipe.toml").rename(recipe)
    told: dict[str, Any] = {}
    batch, real = aws.client("batch"), aws.client
    batch.meta.events.register(
        "provide-client-params.batch.SubmitJob", lambda params, **_: told.update(params)
    )
    monkeypatch.setattr(aws, "client", lambda service: batch if service == "batch" else real(service))
    submit_embedding(recipe, {"schedule.epochs": "6"}, data, Remote(place.name, upload=True))
    work = tmp_path / "work"
    start = [sys.executable, "-m", "training.job.entry", "--every", "0.1", "--work", str(work)]
    start += [*told["containerOverrides"]["command"], "--threads", "1"]

    def begin() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            start, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

    job = begin()
    give_up = time.monotonic() + 300
    while "checkpoint.pt" not in keys(place, "training/shop/"):
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < give_up
        time.sleep(0.05)
    job.kill()
    job.communicate()
    shutil.rmtree(work)
    assert outcome.DONE not in keys(place, "training/shop/")

    again = begin()
    said, _ = again.communicate(timeout=500)
    assert again.returncode == entry.DONE, said
    assert "resumes: " in said
    remote.fetch(place, "shop", tmp_path / "run", lambda _: None)

    torch.set_num_threads(1)
    whole = read_recipe(recipe, {"schedule.epochs": "6"})
    train(data, tmp_path / "whole", whole, resume=False, tracking=None)
    runs = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=False) for name in ("run", "whole")]
    for part in ("task", "average"):
        assert runs[0][part].keys() == runs[1][part].keys()
        assert all(torch.equal(value, runs[1][part][name]) for name, value in runs[0][part].items())
