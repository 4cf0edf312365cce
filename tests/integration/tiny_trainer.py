"""A real training in three seconds, with the command line of `magpie train`: the job's tests run it.

    python tiny_trainer.py fail|train --data DIR --out RUN_DIR [--resume] [--step-seconds S]

It learns to take noise away from the rows of DIR/rows.npy. Dropout and the shuffled rows make the random
state count, so only an exact resume ends with the weights of an uninterrupted run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.loop import fit, seed_everything
from training.schedule import Schedule

EPOCHS, STEPS = 6, 10


class Rows:
    """Ten batches an epoch, chosen by the epoch and the step alone."""

    def __init__(self, rows: np.ndarray, pause: float) -> None:
        self.rows, self.pause = rows, pause

    def __len__(self) -> int:
        return STEPS

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Tensor]:
        for step in range(first_step, STEPS):
            time.sleep(self.pause)
            chosen = np.random.default_rng([epoch, step]).choice(len(self.rows), 8)
            yield torch.from_numpy(self.rows[chosen])


class Denoise(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(width, width), nn.Dropout(0.5)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        return {"error": (self.layer(self.dropout(batch)) - batch).square().mean()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("train", "fail"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--step-seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    if arguments.what == "fail":
        print("began", flush=True)
        sys.exit("error: juice: has one picture, a class needs two")
    if arguments.recipe:
        print(f"recipe: {arguments.recipe.read_text().strip()}", flush=True)
    torch.set_num_threads(1)
    seed_everything(7)
    rows = np.load(arguments.data / "rows.npy")
    task = Denoise(rows.shape[1])
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.02)
    schedule = Schedule(EPOCHS, warmup=5).rate(optimizer, STEPS)
    batches = Rows(rows, arguments.step_seconds)
    fit(
        task,
        optimizer,
        schedule,
        batches,
        arguments.out,
        epochs=EPOCHS,
        resume=arguments.resume,
        checkpoint_every=3,
    )


if __name__ == "__main__":
    main()
