"""One training loop for every model, in the manner of nanoGPT: it reads from top to bottom.

It can be killed at any time. A checkpoint holds the weights, their average, the optimizer, the schedule,
the random state and the place in the epoch; batches depend on the seed, the epoch and the step alone. So a
resumed run takes the same steps as one never interrupted.
"""

from __future__ import annotations

import errno
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.errors import FailedPrecondition, InvalidArgument, Unavailable
from training.device import Device

CPU = Device("cpu", torch.float32)


class Batches(Protocol):
    """Where batches come from. A batch is whatever the task takes."""

    def __len__(self) -> int:
        """Steps in one epoch."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Any]:
        """The batches of one epoch from `first_step` on; the same ones whenever it is asked again."""


class Stateful(Protocol):
    """What a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any, /) -> object: ...


class Tracker(Protocol):
    """Who is told the numbers, besides metrics.jsonl."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """`step` counts from the beginning of the run."""


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch. Call it before the model is built."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def check_run_folder(run_dir: Path, *, resume: bool) -> None:
    """Raise FailedPrecondition if `run_dir` holds a run and `resume` is not set."""
    if (run_dir / "checkpoint.pt").exists() and not resume:
        raise FailedPrecondition(f"{run_dir} holds a run already: resume it, or choose another folder")


def fit(  # noqa: PLR0915 - it reads from top to bottom
    task: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    batches: Batches,
    run_dir: Path,
    *,
    epochs: int,
    resume: bool = False,
    checkpoint_every: int = 50,
    clip_norm: float = 5.0,
    device: Device = CPU,
    average: AveragedModel | None = None,
    also: Mapping[str, Stateful] | None = None,
    tracker: Tracker | None = None,
    before_epoch: Callable[[int], None] | None = None,
    after_epoch: Callable[[], Mapping[str, float]] | None = None,
) -> None:
    """Train `task` until `epochs` are done.

    `task(batch)` returns its loss terms by name; their sum is minimised. The schedule steps once a batch, and
    so does `average`. `run_dir` gets `checkpoint.pt` and `metrics.jsonl`, a line a step and one an epoch, the
    latter with what `after_epoch` measured. `before_epoch` may change what batches are drawn, if its outcome
    is in `also`, which goes into checkpoints. Raises FailedPrecondition if `run_dir` holds a run and `resume`
    is not set, InvalidArgument if a loss is no longer finite, and Unavailable if the disk is full: the last
    checkpoint is whole in all cases.
    """
    check_run_folder(run_dir, resume=resume)
    run_dir.mkdir(parents=True, exist_ok=True)
    checkpoint, metrics = run_dir / "checkpoint.pt", run_dir / "metrics.jsonl"
    scaler = device.scaler()
    parts: dict[str, Stateful] = {
        "task": task,
        "optimizer": optimizer,
        "schedule": schedule,
        "scaler": scaler,
    }
    parts |= ({"average": average} if average is not None else {}) | dict(also or {})
    epoch, step = 0, 0
    if checkpoint.exists():
        epoch, step = _load(checkpoint, parts, device)
        _drop_after(metrics, epoch, step)

    while epoch < epochs:
        if before_epoch is not None and step == 0:
            task.eval()
            before_epoch(epoch)
        task.train()
        bar = tqdm(total=len(batches), initial=step, desc=f"epoch {epoch + 1}/{epochs}", mininterval=2)
        for batch in batches.epoch(epoch, step):
            terms: dict[str, Tensor] = task(batch if device.name == "cpu" else batch.to(device.name))
            loss = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                parts_of_it = ", ".join(f"{name} {term.item():.3g}" for name, term in terms.items())
                raise InvalidArgument(
                    "loss",
                    f"is {loss.item()} in epoch {epoch + 1}, step {step + 1} ({parts_of_it}): lower the rate "
                    f"(optimizer.lr), and go on from the last checkpoint in {run_dir} or begin anew",
                )
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(task.parameters(), clip_norm)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            if average is not None:
                average.update_parameters(task)
            step += 1
            values = {name: round(term.item(), 5) for name, term in terms.items()}
            rate = float(schedule.get_last_lr()[-1])
            _append(metrics, {"epoch": epoch, "step": step, "rate": rate, **values})
            if tracker is not None and step % 10 == 0:
                tracker.log({"loss": loss.item(), "rate": rate, **values}, epoch * len(batches) + step)
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            if step % checkpoint_every == 0 and step < len(batches):
                _save(checkpoint, parts, epoch, step)
        bar.close()
        epoch, step = epoch + 1, 0
        if after_epoch is not None:
            task.eval()
            with torch.no_grad():
                measured = dict(after_epoch())
            _append(metrics, {"epoch": epoch, "step": 0, **measured})
            if tracker is not None:
                tracker.log(measured, epoch * len(batches))
            words = "  ".join(f"{name} {value:.3f}" for name, value in measured.items())
            tqdm.write(f"after epoch {epoch}: {words}", file=sys.stderr)
        _save(checkpoint, parts, epoch, step)


def _save(path: Path, parts: Mapping[str, Stateful], epoch: int, step: int) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old one or the new one."""
    state = {name: part.state_dict() for name, part in parts.items()} | {
        "epoch": epoch,
        "step": step,
        "random": {
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(),
            "python": random.getstate(),
        },
    }
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch reports a short write as a RuntimeError
        partial.unlink(missing_ok=True)
        if not _is_full(error):
            raise
        raise Unavailable(
            f"no room on the disk for a checkpoint in {path.parent}: the one before it is whole; "
            "make room, then go on with --resume"
        ) from error
    partial.replace(path)


def _is_full(error: BaseException) -> bool:
    """Whether a write failed for want of room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "PytorchStreamWriter failed" in str(error) or "unexpected pos" in str(error)


def _load(path: Path, parts: Mapping[str, Stateful], device: Device) -> tuple[int, int]:
    """Restore `parts` and the random state; the epoch and step to go on from."""
    # Our own file: it holds random states, not only tensors.
    state = torch.load(path, map_location=device.name, weights_only=False)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"]["torch"].cpu())
    np.random.set_state(state["random"]["numpy"])
    random.setstate(state["random"]["python"])
    return state["epoch"], state["step"]


def _append(path: Path, record: Mapping[str, Any]) -> None:
    try:
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        if not _is_full(error):
            raise
        raise Unavailable(f"no room on the disk for {path}: make room, then go on with --resume") from error


def _drop_after(path: Path, epoch: int, step: int) -> None:
    """Forget the lines of steps that came after the checkpoint: they are about to be taken again."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = []
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break  # the line that was being written when the run was killed
        if (record["epoch"], record["step"]) > (epoch, step):
            break
        kept.append(line + "\n")
    path.write_text("".join(kept))
