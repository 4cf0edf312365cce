"""The loop resumes exactly, refuses to mix runs, and stops on a loss that is no number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from magpie.errors import FailedPrecondition, InvalidArgument
from training.loop import fit, seed_everything
from training.schedule import Schedule


class Killed(Exception):
    """Stands for a kill: it leaves the loop between two steps."""


class Noise:
    """Seven batches an epoch, made from the epoch and the step. Raises Killed at its `kill_at`-th batch."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.kill_at = kill_at
        self.given = 0

    def __len__(self) -> int:
        return 7

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Tensor]:
        for step in range(first_step, len(self)):
            if self.given == self.kill_at:
                raise Killed
            self.given += 1
            rng = np.random.default_rng([epoch, step])
            yield torch.from_numpy(rng.standard_normal((4, 3)).astype(np.float32))


class Denoise(nn.Module):
    """Two loss terms, and dropout so that the random state counts."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.layer, self.dropout, self.scale = nn.Linear(3, 3), nn.Dropout(0.5), scale

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        out = self.layer(self.dropout(batch)) * self.scale
        return {"error": (out - batch).square().mean(), "size": 0.1 * out.square().mean()}


def run(folder: Path, *, kill_at: int | None = None, resume: bool = False, scale: float = 1.0) -> Denoise:
    seed_everything(5)
    task = Denoise(scale)
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.05)
    schedule = Schedule(epochs=1, warmup=3).rate(optimizer, 21)
    fit(
        task,
        optimizer,
        schedule,
        Noise(kill_at),
        folder,
        epochs=3,
        resume=resume,
        checkpoint_every=2,
        after_epoch=lambda: {"norm": task.layer.weight.norm().item()},
    )
    return task


@pytest.mark.parametrize("kill_at", [3, 7, 12, 20])
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path, kill_at: int) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", kill_at=kill_at)
    resumed = run(tmp_path / "killed", resume=True)
    for expected, parameter in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, parameter)
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "killed")]
    assert metrics[0] == metrics[1]


def test_metrics_hold_every_step_and_every_epoch(tmp_path: Path) -> None:
    run(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [(r["epoch"], r["step"]) for r in records if "error" in r]
    assert steps == [(epoch, step) for epoch in range(3) for step in range(1, 8)]
    assert [r["epoch"] for r in records if "norm" in r] == [1, 2, 3]
    assert records[-2]["error"] < records[0]["error"]


def test_a_line_cut_off_by_the_kill_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, kill_at=9)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "st')
    run(tmp_path, resume=True)
    assert len([json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]) == 24


def test_a_second_run_in_the_same_folder_must_say_resume(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(FailedPrecondition, match="resume"):
        run(tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="lower the rate"):
        run(tmp_path, scale=float("inf"))
