"""One training loop for every model, in the manner of nanoGPT: it reads from top to bottom.

It can be killed at any time. A checkpoint holds the weights, the optimizer, the schedule, the random state
and the place in the epoch; batches depend on the seed, the epoch and the step alone. So a resumed run takes
the same steps as one never interrupted.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.errors import FailedPrecondition, InvalidArgument


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


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch. Call it before the model is built."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def check_run_folder(run_dir: Path, *, resume: bool) -> None:
    """Raise FailedPrecondition if `run_dir` holds a run and `resume` is not set."""
    if (run_dir / "checkpoint.pt").exists() and not resume:
        raise FailedPrecondition(f"{run_dir} holds a run already: resume it, or choose another folder")


def fit(
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
    after_epoch: Callable[[], Mapping[str, float]] | None = None,
) -> None:
    """Train `task` until `epochs` are done.

    `task(batch)` returns its loss terms by name; their sum is minimised. The schedule steps once a batch.
    `run_dir` gets `checkpoint.pt` and `metrics.jsonl`, a line a step and one an epoch, the latter with what
    `after_epoch` measured. Raises FailedPrecondition if `run_dir` holds a run and `resume` is not set, and
    InvalidArgument if a loss is no longer finite.
    """
    check_run_folder(run_dir, resume=resume)
    run_dir.mkdir(parents=True, exist_ok=True)
    checkpoint, metrics = run_dir / "checkpoint.pt", run_dir / "metrics.jsonl"
    parts: dict[str, Stateful] = {"task": task, "optimizer": optimizer, "schedule": schedule}
    epoch, step = 0, 0
    if checkpoint.exists():
        epoch, step = _load(checkpoint, parts)
        _drop_after(metrics, epoch, step)

    while epoch < epochs:
        task.train()
        bar = tqdm(total=len(batches), initial=step, desc=f"epoch {epoch + 1}/{epochs}", mininterval=2)
        for batch in batches.epoch(epoch, step):
            terms: dict[str, Tensor] = task(batch)
            loss = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                raise InvalidArgument("loss", f"{loss.item()} in epoch {epoch}, step {step}: lower the rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(task.parameters(), clip_norm)
            optimizer.step()
            schedule.step()
            step += 1
            values = {name: round(term.item(), 5) for name, term in terms.items()}
            _append(metrics, {"epoch": epoch, "step": step, "rate": schedule.get_last_lr()[-1], **values})
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            if step % checkpoint_every == 0:
                _save(checkpoint, parts, epoch, step)
        bar.close()
        epoch, step = epoch + 1, 0
        if after_epoch is not None:
            task.eval()
            with torch.no_grad():
                measured = dict(after_epoch())
            _append(metrics, {"epoch": epoch, "step": 0, **measured})
            print(
                f"after epoch {epoch}: " + "  ".join(f"{k} {v:.3f}" for k, v in measured.items()), flush=True
            )
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
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _load(path: Path, parts: Mapping[str, Stateful]) -> tuple[int, int]:
    """Restore `parts` and the random state; the epoch and step to go on from."""
    state = torch.load(path, weights_only=False)  # our own file: it holds random states, not only tensors
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"]["torch"])
    np.random.set_state(state["random"]["numpy"])
    random.setstate(state["random"]["python"])
    return state["epoch"], state["step"]


def _append(path: Path, record: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


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
