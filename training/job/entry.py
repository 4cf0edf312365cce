"""One training job, from S3 and back: what the container of AWS Batch runs, and what runs here just the same.

    python -m training.job.entry --run s3://BUCKET/training/RUN --data s3://BUCKET/data/NAME -- \\
        embedding --recipe s3://BUCKET/training/RUN/submitted.toml --set optimizer.lr=3e-4

It fetches the data set (what is missing of it) and the run folder, starts the trainer with `--data`,
`--out` and, if there is a checkpoint, `--resume`, and copies the run folder to S3 as it grows. It can be
killed at any time, its machine and disk can go: the next one goes on from the last checkpoint in S3 and ends
with the same weights.

The run folder ends with `done.json`, or `failed.json` with the reason. The exit code is 0 when the run is
done, 75 when another attempt can go on (the machine was taken away, S3 did not answer), 1 when it cannot, 2
when the command was not understood.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magpie.errors import FailedPrecondition, MagpieError, NotFound, Unavailable
from training.job import aws, outcome, s3_folder
from training.job.run_upload import CHECKPOINT, RunUpload
from training.job.s3_folder import S3Folder, Transfer
from training.job.trainer_process import TrainerProcess

DONE, FAILED, TRY_AGAIN = 0, 1, 75  # 75: EX_TEMPFAIL of sysexits.h; the job definition retries it
DATA_SEEN = "job_data.json"  # in the run folder: which data the run began with
_OURS = ".magpie-job"  # marks a work folder whose contents we may replace
_POLL_SECONDS = 0.1
_PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """What to run, and where."""

    run: S3Folder
    data: S3Folder
    arguments: tuple[str, ...]  # the trainer's own, such as `embedding --recipe ...`
    work: Path  # scratch folder
    trainer: tuple[str, ...] = (sys.executable, "-m", "training.job.trainer")
    every: float = 60.0  # seconds between uploads
    grace: float = 20.0  # seconds that a trainer has to end by itself when the machine goes

    @property
    def run_dir(self) -> Path:
        return self.work / "run"

    @property
    def data_dir(self) -> Path:
        return self.work / "data"


class Interrupted(Exception):
    """The machine is being taken away, or a person pressed Ctrl-C."""


class Stop:
    """Turns SIGTERM and SIGINT into a request to end: of the trainer once it runs, before by Interrupted."""

    def __init__(self) -> None:
        self.asked_at: float | None = None  # monotonic seconds
        self._trainer: TrainerProcess | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)

    def watch(self, trainer: TrainerProcess) -> None:
        """From now on the trainer is who is asked."""
        self._trainer = trainer
        if self.asked_at is not None:
            trainer.ask_to_end()

    def _asked(self, number: int, _frame: object) -> None:
        first, self.asked_at = self.asked_at is None, self.asked_at or time.monotonic()
        if self._trainer is not None:
            self._trainer.ask_to_end()
        elif first:
            raise Interrupted(signal.Signals(number).name)


def run(job: Job) -> int:
    """Run it to an end; the exit code."""
    stop = Stop()
    try:
        _own(job.work)
        s3 = aws.client("s3")
        return _run(job, s3, stop)
    except Interrupted as error:
        tell(f"{error}: ended before training began; another attempt starts anew")
        return TRY_AGAIN
    except Unavailable as error:
        tell(f"error: {error}")
        return TRY_AGAIN
    except (MagpieError, OSError) as error:
        return _fail(job, str(error))


def _run(job: Job, s3: Any, stop: Stop) -> int:
    there = s3_folder.listing(s3, job.run)
    if outcome.DONE in there:
        tell(f"{job.run} is done already")
        return DONE
    data = s3_folder.listing(s3, job.data)
    if not data:
        raise NotFound(
            f"{job.data}: there is no data; `magpie train embedding --remote --upload` sends a folder"
        )
    _fetch(s3, job.data, job.data_dir, "data")
    _fetch(s3, job.run, job.run_dir, "run", without=(outcome.FAILED,))
    resumed = (job.run_dir / CHECKPOINT).exists()
    upload = RunUpload(s3, job.run, job.run_dir, job.work / "upload")
    _check_data(job, data, resumed=resumed)

    options = ["--data", str(job.data_dir), "--out", str(job.run_dir), *(["--resume"] if resumed else [])]
    command = [*job.trainer, *(_local(argument, job) for argument in job.arguments), *options]
    tell(f"{'resumes' if resumed else 'starts'}: {shlex.join(command)}")
    began = time.monotonic()
    trainer = TrainerProcess(command, job.run_dir / outcome.LOG, tell)
    stop.watch(trainer)
    code = _keep(trainer, upload, stop, job)

    if code != 0 and stop.asked_at is None:
        lines = list(trainer.last_lines)
        _upload(upload, last=True)
        return _fail(job, outcome.reason_of(code, lines), lines)
    if not _upload(upload, last=True):
        return TRY_AGAIN
    if code != 0:
        tell("interrupted: the last state is in S3, another attempt goes on from it")
        return TRY_AGAIN
    files = {name: (job.run_dir / name).stat().st_size for name in s3_folder.files_of(job.run_dir)}
    s3_folder.write(s3, job.run, outcome.DONE, outcome.done(time.monotonic() - began, files))
    tell(f"done: {job.run}")
    return DONE


def _keep(trainer: TrainerProcess, upload: RunUpload, stop: Stop, job: Job) -> int:
    """Wait for the trainer's end and upload meanwhile; its exit code."""
    next_upload = time.monotonic() + job.every
    while trainer.running():
        time.sleep(_POLL_SECONDS)
        if stop.asked_at is not None:
            if time.monotonic() > stop.asked_at + job.grace:
                tell(f"the trainer did not end within {job.grace:g} s: it is killed")
                trainer.kill()
        elif time.monotonic() >= next_upload:
            _upload(upload)
            next_upload = time.monotonic() + job.every
    return trainer.code()


def _upload(upload: RunUpload, *, last: bool = False) -> bool:
    """True if S3 has it all. A failure does not end the training: the next upload may succeed."""
    try:
        upload.now()
    except (MagpieError, OSError) as error:
        tell(f"upload failed{'' if last else ', will be tried again'}: {error}")
        return False
    return True


def _fetch(s3: Any, folder: S3Folder, into: Path, what: str, without: Sequence[str] = ()) -> None:
    shown = time.monotonic()

    def watch(state: Transfer) -> None:
        nonlocal shown
        if time.monotonic() - shown > _PROGRESS_SECONDS:
            shown = time.monotonic()
            tell(
                f"{what}: {state.files_done} of {state.files} files, "
                f"{_mb(state.size_done)} of {_mb(state.size)}"
            )

    done = s3_folder.fetch(s3, folder, into, without=without, watch=watch)
    tell(f"{what}: {done.files} files fetched ({_mb(done.size)}), {done.unchanged} were here, from {folder}")


def _check_data(job: Job, data: dict[str, s3_folder.S3File], *, resumed: bool) -> None:
    """A run that goes on must see the pictures that it began with, or its result is nobody's."""
    seen = {"data": str(job.data), "files": len(data), "sha256": s3_folder.fingerprint(data)}
    record = job.run_dir / DATA_SEEN
    if resumed and record.exists() and json.loads(record.read_text()) != seen:
        raise FailedPrecondition(
            f"{job.data} has changed since {job.run} began: put back what it was, "
            "or start a run of another name"
        )
    if not record.exists():
        record.write_text(json.dumps(seen, indent=2) + "\n")


def _local(argument: str, job: Job) -> str:
    """A file of the run or data folder in S3 as the path of its copy here; anything else as it is."""
    for folder, path in ((job.run, job.run_dir), (job.data, job.data_dir)):
        if argument.startswith(f"{folder}/"):
            return str(path / argument.removeprefix(f"{folder}/"))
    return argument


def _own(work: Path) -> None:
    """Raise FailedPrecondition if `work` holds what is not ours: its contents are going to be replaced."""
    if work.is_dir() and any(work.iterdir()) and not (work / _OURS).exists():
        raise FailedPrecondition(f"{work} is not empty and no work folder of a job: name another with --work")
    work.mkdir(parents=True, exist_ok=True)
    (work / _OURS).touch()
    shutil.rmtree(work / "upload", ignore_errors=True)


def _fail(job: Job, reason: str, lines: Sequence[str] = ()) -> int:
    """Say why where a person looks: the log, and the run folder in S3."""
    tell(f"failed: {reason}")
    try:
        s3_folder.write(
            aws.client("s3"), job.run, outcome.FAILED, outcome.failed(reason, outcome.tail(lines))
        )
    except MagpieError as error:
        tell(f"and {outcome.FAILED} could not be written: {error}")
    return FAILED


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


_output = threading.Lock()


def tell(line: str) -> None:
    """A line of the job's log."""
    with _output:
        print(line, flush=True)


def parse(arguments: Sequence[str] | None = None) -> Job:
    """The command line. Exits with 2 if it is not understood."""
    parser = argparse.ArgumentParser(
        prog="python -m training.job.entry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", required=True, metavar="s3://...", help="run folder")
    parser.add_argument("--data", required=True, metavar="s3://...", help="data set")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(os.environ.get("MAGPIE_JOB_WORK", ".training/job")),
        help="scratch folder; default $MAGPIE_JOB_WORK, else %(default)s",
    )
    parser.add_argument("--every", type=float, default=60.0, metavar="S", help="seconds between uploads")
    parser.add_argument(
        "--grace", type=float, default=20.0, metavar="S", help="seconds to end in when asked to"
    )
    parser.add_argument("--trainer", metavar="COMMAND", help="in place of `magpie train`")
    parser.add_argument(
        "arguments", nargs="+", metavar="-- ...", help="what the trainer gets: embedding --recipe ..."
    )
    options = parser.parse_args(arguments)
    try:
        run_folder, data = S3Folder.parse(options.run, "--run"), S3Folder.parse(options.data, "--data")
    except MagpieError as error:
        parser.error(str(error))
    trainer = tuple(shlex.split(options.trainer)) if options.trainer else Job.trainer
    work = options.work.resolve()
    return Job(run_folder, data, tuple(options.arguments), work, trainer, options.every, options.grace)


if __name__ == "__main__":
    sys.exit(run(parse()))
