"""The rate over a run, and the rate of each layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from training.optimizer import Optimizer
from training.schedule import Schedule


def rates(schedule: Schedule, steps: int, count: int, lr: float = 2.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    way = schedule.rate(optimizer, steps)
    seen = []
    for _ in range(count):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        way.step()
    return seen


def test_cosine_rises_then_falls_to_its_floor() -> None:
    seen = rates(Schedule(epochs=2, warmup=4, floor=0.01), steps=12, count=30)
    assert seen[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert seen[14] == pytest.approx(2.0 * (0.01 + 0.99 * 0.5))  # half of the way down
    assert seen[3:25] == sorted(seen[3:25], reverse=True)
    assert seen[24:] == pytest.approx([0.02] * 6)


def test_sgdr_restarts_and_each_cycle_is_longer() -> None:
    schedule = Schedule(epochs=7, kind="sgdr", warmup=0, floor=0.0, cycle=1, longer=2)
    seen = rates(schedule, steps=10, count=70)
    restarts = [step for step in range(1, 70) if seen[step] > seen[step - 1]]
    assert restarts == [10, 30]
    for start, length in ((0, 10), (10, 20), (30, 40)):
        for step in range(start, min(start + length, 70)):
            expected = 0.5 * (1 + math.cos(math.pi * (step - start) / length))
            assert seen[step] == pytest.approx(2.0 * expected)


def test_step_annealing_falls_at_its_milestones() -> None:
    schedule = Schedule(epochs=10, kind="step", warmup=0, milestones=(0.5, 0.8), gamma=0.1)
    seen = rates(schedule, steps=2, count=20)
    assert seen[:10] == pytest.approx([2.0] * 10)
    assert seen[10:16] == pytest.approx([0.2] * 6)
    assert seen[16:] == pytest.approx([0.02] * 4)


def test_each_layer_learns_at_its_own_rate_and_frozen_ones_at_none() -> None:
    stages = [nn.Linear(2, 2) for _ in range(4)]
    stages[0].requires_grad_(False)
    proxies = [nn.Parameter(torch.zeros(3))]
    settings = Optimizer(lr=1.0, layer_decay=0.5, head_factor=3, proxy_factor=10)
    groups = settings.build(stages, nn.Linear(2, 1).parameters(), proxies).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert [rate.get(id(stage.weight)) for stage in stages] == [None, 0.25, 0.5, 1.0]
    assert rate[id(proxies[0])] == 10
    assert sorted(set(rate.values())) == [0.25, 0.5, 1.0, 3.0, 10.0]


def test_the_average_follows_the_weights_slowly() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = Optimizer(ema=0.9).average(model)
    assert average is not None
    assert Optimizer(ema=0).average(model) is None
    nn.init.constant_(model.weight, 1.0)
    average.update_parameters(model)
    nn.init.constant_(model.weight, 2.0)
    average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(0.9 * 1.0 + 0.1 * 2.0)


def test_batch_norm_s_statistics_are_averaged_as_the_weights_are() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1))
    average = Optimizer(ema=0.9).average(model)
    assert average is not None
    for mean in (1.0, 2.0):
        model[0].running_mean.fill_(mean)
        average.update_parameters(model)
    assert average.module[0].running_mean.item() == pytest.approx(0.9 * 1.0 + 0.1 * 2.0)
