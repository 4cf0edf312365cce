"""Runs on AWS Batch: sent, listed, followed, cancelled, brought back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from magpie.errors import FailedPrecondition, InvalidArgument, MagpieError, NotFound
from training.job import aws, outcome, s3_folder
from training.job.s3_folder import S3Folder, Transfer, Watcher
from training.job.stack import TrainingStack, check_image

RUN_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}")  # a job's name, too
RECIPE, SUBMISSION = "submitted.toml", "submission.json"  # in the run folder
UNFINISHED = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
_FINISHED = ("SUCCEEDED", "FAILED")
_MEANING = {
    "SUBMITTED": "sent",
    "PENDING": "sent",
    "RUNNABLE": "waits for a machine; minutes are usual, more where spot GPUs are scarce",
    "STARTING": "a machine is there and loads the image",
    "RUNNING": "trains",
    "SUCCEEDED": "done",
    "FAILED": "failed",
}
_COMMAND_LIMIT = 8000  # characters; Batch takes overrides of 8192


@dataclass(frozen=True)
class RemoteRun:
    """A run that was sent."""

    name: str
    job: str  # Batch's id
    folder: str  # s3://...
    resumes: bool  # the folder has a checkpoint


@dataclass(frozen=True)
class RunState:
    """How a run is."""

    name: str
    job: str  # "" if Batch has forgotten it, which it does a week after the end
    status: str  # Batch's, or DONE, FAILED or STOPPED by what the run folder holds
    reason: str = ""
    changed: str = ""  # ISO 8601


def check_name(name: str) -> None:
    """Raise InvalidArgument for what can name neither a job nor a folder."""
    if not RUN_NAME.fullmatch(name):
        raise InvalidArgument("--run", f"{name!r}: 1 to 63 letters, digits, `-` and `_`; the first no sign")


def submit(
    stack: TrainingStack, name: str, data: S3Folder, recipe: str, arguments: Sequence[str]
) -> RemoteRun:
    """Send a run; one that was sent before goes on from its last checkpoint.

    `recipe` is TOML text. `arguments` are the trainer's, with `{recipe}` where the recipe's address belongs.
    Raises FailedPrecondition if the run is done, is under way, was another one, or has no image to run on,
    and NotFound without data.
    """
    check_name(name)
    check_image(stack)
    s3, batch = aws.client("s3"), aws.client("batch")
    folder = stack.run(name)
    if not s3_folder.listing(s3, data):
        raise NotFound(f"there is nothing in {data}: add --upload to send the local folder first")
    active = [job for job in _jobs(batch, stack, name) if job["status"] in UNFINISHED]
    if active:
        raise FailedPrecondition(
            f"run {name} is under way ({active[0]['status']}): `magpie train remote follow {name}`"
        )
    there = s3_folder.listing(s3, folder)
    if outcome.DONE in there:
        raise FailedPrecondition(f"run {name} is done: `magpie train remote fetch {name}`, or name another")
    submission = {"data": str(data), "recipe": recipe, "arguments": list(arguments)}
    if SUBMISSION in there:
        _check_same(name, json.loads(s3_folder.read(s3, folder, SUBMISSION)), submission)
    address = f"{folder}/{RECIPE}"
    command = ["--run", str(folder), "--data", str(data), "--"]
    command += [argument.replace("{recipe}", address) for argument in arguments]
    if sum(map(len, command)) > _COMMAND_LIMIT:
        raise InvalidArgument("--set", "too many changes for a command: write them into the recipe")

    s3_folder.write(s3, folder, RECIPE, recipe.encode())
    s3_folder.write(s3, folder, SUBMISSION, json.dumps(submission, indent=2).encode())
    if outcome.FAILED in there:  # of the attempt before
        with aws.answers(str(folder)):
            s3.delete_object(Bucket=folder.bucket, Key=folder.key(outcome.FAILED))
    with aws.answers(f"run {name}"):
        job = batch.submit_job(
            jobName=name,
            jobQueue=stack.queue,
            jobDefinition=stack.definition,
            containerOverrides={"command": command},
            tags={"project": "magpie", "run": name},
        )
    return RemoteRun(name, job["jobId"], str(folder), "checkpoint.pt" in there)


def _check_same(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    words = {"data": "data", "recipe": "recipe", "arguments": "settings"}
    changed = [word for key, word in words.items() if before.get(key) != now[key]]
    if changed:
        raise FailedPrecondition(
            f"run {name} was sent with other {' and '.join(changed)}: it goes on with what it began with "
            "alone; name another with --run"
        )


def upload_data(
    root: Path, parts: Sequence[str], folder: S3Folder, watch: Watcher
) -> tuple[Transfer, list[str]]:
    """Make the folder hold what lies in `root`, or in these sub-folders of it; only what differs travels.

    Also answers with the names that the folder has and `root` has not: they stay. Raises NotFound without
    files.
    """
    names = s3_folder.files_of(root)
    if parts:
        names = [name for name in names if name.split("/", 1)[0] in parts]
    if not names:
        raise NotFound(f"{root} has no files{' in ' + ', '.join(parts) if parts else ''}")
    s3 = aws.client("s3")
    done = s3_folder.push(s3, root, names, folder, watch=watch)
    tops = set(parts)
    extra = [
        name
        for name in s3_folder.listing(s3, folder)
        if name not in set(names) and (not tops or name.split("/", 1)[0] in tops)
    ]
    return done, sorted(extra)


def follow(stack: TrainingStack, name: str, tell: Callable[[str], None], *, every: float = 5.0) -> RunState:
    """Tell the run's log and its states until it ends; how it ended. Raises NotFound if it was never sent.

    An interruption (KeyboardInterrupt) ends the following alone: the run goes on.
    """
    batch, logs = aws.client("batch"), aws.client("logs")
    latest = _latest(batch, stack, name)
    if latest is None:
        state = _state_by_folder(stack, name)
        tell(f"{state.status.lower()}: {state.reason}" if state.reason else state.status.lower())
        return state
    seen, positions = "", dict[str, str]()
    while True:
        job = _describe(batch, latest["jobId"])
        status, reason = job["status"], job.get("statusReason", "")
        said = f"{status}: {_MEANING[status]}" + (f" ({reason})" if reason else "")
        if said != seen:
            tell(f"--- {said}")
            seen = said
        if status in _FINISHED:
            time.sleep(every)  # the last lines reach the log late
        for stream in _streams(job):
            for line in _new_lines(logs, stack.log_group, stream, positions):
                tell(line)
        if status in _FINISHED:
            return _ended(stack, name, job)
        time.sleep(every)


def cancel(stack: TrainingStack, name: str) -> list[str]:
    """End the run; what it has learnt until its last upload stays. The jobs that were ended.

    Raises NotFound if none is under way.
    """
    batch = aws.client("batch")
    active = [job for job in _jobs(batch, stack, name) if job["status"] in UNFINISHED]
    if not active:
        raise NotFound(f"run {name} is not under way")
    for job in active:
        with aws.answers(f"run {name}"):
            # Cancels what waits, and asks what runs to end; neither is tried again.
            batch.terminate_job(jobId=job["jobId"], reason="cancelled by `magpie train remote cancel`")
    return [job["jobId"] for job in active]


def runs(stack: TrainingStack) -> list[RunState]:
    """All runs whose folder is there, by name."""
    s3, batch = aws.client("s3"), aws.client("batch")
    with aws.answers(f"s3://{stack.bucket}/training"):
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=stack.bucket, Prefix="training/", Delimiter="/"
        )
        names = [item["Prefix"].split("/")[1] for page in pages for item in page.get("CommonPrefixes", [])]
    states = []
    for name in names:
        job = _latest(batch, stack, name)
        if job is not None and job["status"] in UNFINISHED:
            states.append(RunState(name, job["jobId"], job["status"], "", _iso(job["createdAt"])))
        else:
            states.append(_state_by_folder(stack, name, job["jobId"] if job else ""))
    return states


def fetch(stack: TrainingStack, name: str, into: Path, watch: Watcher) -> Transfer:
    """Bring a run's folder here; `into` becomes the same. Raises NotFound, or FailedPrecondition.

    `into` may hold an earlier state of the run and nothing else.
    """
    s3 = aws.client("s3")
    folder = stack.run(name)
    if not s3_folder.listing(s3, folder):
        raise NotFound(f"there is no run {name} in {stack.bucket}")
    if into.is_dir() and any(into.iterdir()) and not (into / SUBMISSION).is_file():
        raise FailedPrecondition(f"{into} holds something else: name another folder with --out")
    return s3_folder.fetch(s3, folder, into, watch=watch)


def _jobs(batch: Any, stack: TrainingStack, name: str) -> list[Any]:
    """The run's jobs that Batch remembers, newest first."""
    with aws.answers(f"queue {stack.queue}"):
        pages = batch.get_paginator("list_jobs").paginate(
            jobQueue=stack.queue, filters=[{"name": "JOB_NAME", "values": [name]}]
        )
        found = [job for page in pages for job in page["jobSummaryList"] if job["jobName"] == name]
    return sorted(found, key=lambda job: -job["createdAt"])


def _latest(batch: Any, stack: TrainingStack, name: str) -> Any:
    return next(iter(_jobs(batch, stack, name)), None)


def _describe(batch: Any, job: str) -> Any:
    with aws.answers(f"job {job}"):
        found = batch.describe_jobs(jobs=[job])["jobs"]
    if not found:
        raise NotFound(f"Batch does not know job {job}")
    return found[0]


def _streams(job: Mapping[str, Any]) -> list[str]:
    """The log streams of its attempts, first to last."""
    containers = [attempt.get("container", {}) for attempt in job.get("attempts", [])]
    names = [c.get("logStreamName") for c in (*containers, job.get("container", {}))]
    return list(dict.fromkeys(name for name in names if name))


def _new_lines(logs: Any, group: str, stream: str, positions: dict[str, str]) -> Iterator[str]:
    """What a stream has gained; `positions` remembers how far each was read."""
    while True:
        position = {"nextToken": positions[stream]} if stream in positions else {}
        try:
            with aws.answers(f"log {stream}"):
                page = logs.get_log_events(
                    logGroupName=group, logStreamName=stream, startFromHead=True, **position
                )
        except MagpieError as error:
            if "ResourceNotFound" in str(error):  # the job has said nothing yet
                return
            raise
        yield from (event["message"] for event in page["events"])
        token = page["nextForwardToken"]
        if positions.get(stream) == token or not page["events"]:
            positions[stream] = token
            return
        positions[stream] = token


def _ended(stack: TrainingStack, name: str, job: Mapping[str, Any]) -> RunState:
    if job["status"] == "SUCCEEDED":
        return RunState(name, job["jobId"], "DONE")
    state = _state_by_folder(stack, name, job["jobId"])
    return RunState(name, job["jobId"], "FAILED", state.reason or job.get("statusReason", ""))


def _state_by_folder(stack: TrainingStack, name: str, job: str = "") -> RunState:
    """By what the run left. Raises NotFound if there is nothing."""
    s3, folder = aws.client("s3"), stack.run(name)
    there = s3_folder.listing(s3, folder)
    if not there:
        raise NotFound(f"there is no run {name} in {stack.bucket}")
    if outcome.DONE in there:
        return RunState(
            name, job, "DONE", "", json.loads(s3_folder.read(s3, folder, outcome.DONE))["finished"]
        )
    if outcome.FAILED in there:
        failed = json.loads(s3_folder.read(s3, folder, outcome.FAILED))
        return RunState(name, job, "FAILED", failed["reason"], failed["failed"])
    return RunState(name, job, "STOPPED", "send it again to go on" if "checkpoint.pt" in there else "")


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
