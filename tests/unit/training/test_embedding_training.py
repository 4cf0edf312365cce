"""A whole training on a tiny set: killed and resumed, exported, refused with clear words."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from magpie.errors import InvalidArgument, MagpieError
from tests.unit.training import tiny_shop
from training.commands.embedding import command
from training.embedding.recipe import read_recipe
from training.embedding.runs import recipe_of, trained_embedder
from training.embedding.train import train

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_shop.make(tmp_path / "data")


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run_dir / "checkpoint.pt", weights_only=False)
    return {f"{part}.{k}": v for part in ("task", "average") for k, v in checkpoint[part].items()}


def start(data: Path, run_dir: Path) -> subprocess.Popen[bytes]:
    arguments = ["train", "embedding", "--recipe", str(data / "recipe.toml"), "--data", str(data)]
    arguments += ["--out", str(run_dir), "--resume", "--threads", "1", "--no-track"]
    return subprocess.Popen(
        [sys.executable, "-m", "local.cli", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=(data / "stderr.txt").open("ab"),
        start_new_session=True,
    )


def steps_taken(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.slow
def test_a_run_killed_at_a_random_step_and_resumed_ends_with_the_same_weights(
    data: Path, tmp_path: Path
) -> None:
    """kill -9 of the real command, at a step drawn anew each time; its number is in the failure's message."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    recipe = read_recipe(data / "recipe.toml")
    torch.set_num_threads(1)
    train(data, whole, recipe, resume=False, tracking=None)

    at = random.randint(1, 8)
    process = start(data, killed)
    while steps_taken(killed) < at and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert steps_taken(killed) < 9 or at == 8, (data / "stderr.txt").read_text()
    assert start(data, killed).wait(timeout=240) == 0, (data / "stderr.txt").read_text()

    expected, found = weights(whole), weights(killed)
    assert expected.keys() == found.keys()
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert not different, f"killed after step {at}"
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()


def test_a_run_folder_says_what_it_was_trained_on_and_gives_its_model_back(
    data: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(data / "recipe.toml", {"schedule.epochs": "1", "leave_out.products": "1"})
    run_dir = tmp_path / "run"
    train(data, run_dir, recipe, resume=False, tracking=None)
    assert recipe_of(run_dir) == recipe
    kept = json.loads((run_dir / "data.json").read_text())
    assert kept["train"] == {"shop": 8, "wardrobe": 6}
    assert len(kept["left_out"]) == 1
    assert f"shop/{kept['left_out'][0]}" not in kept["products"]
    average = torch.load(run_dir / "checkpoint.pt", weights_only=False)["average"]
    head = trained_embedder(run_dir).state_dict()["heads.identity.weight"]
    assert torch.equal(head, average["module.embedder.heads.identity.weight"])


def test_a_loss_that_is_no_number_stops_and_leaves_the_last_checkpoint_whole(
    data: Path, tmp_path: Path
) -> None:
    good = read_recipe(data / "recipe.toml", {"schedule.epochs": "1"})
    run_dir = tmp_path / "run"
    train(data, run_dir, good, resume=False, tracking=None)
    before = (run_dir / "checkpoint.pt").read_bytes()
    bad = read_recipe(data / "recipe.toml", {"losses.distillation": "inf", "schedule.epochs": "2"})
    with pytest.raises(InvalidArgument, match=r"loss: is .* in epoch 2, step 1 .*lower the rate"):
        train(data, run_dir, bad, resume=True, tracking=None)
    assert (run_dir / "checkpoint.pt").read_bytes() == before
    trained_embedder(run_dir)


def test_products_left_out_are_measured_among_all(data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(data / "recipe.toml", {"leave_out.products": "1", "schedule.epochs": "1"})
    figures = train(data, tmp_path / "run", recipe, resume=False, tracking=None)
    assert 0 <= figures["shop unseen product"] <= 1
    summary = json.loads((tmp_path / "run" / "data.json").read_text())
    assert len(summary["left_out"]) == 1
    assert not {f"shop/{name}" for name in summary["left_out"]} & set(summary["products"])


def test_a_run_can_start_from_the_weights_of_another(data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    train(data, first, read_recipe(data / "recipe.toml"), resume=False, tracking=None)
    changes = {"start": str(first), "schedule.epochs": "1", "batch.steps": "1", "optimizer.lr": "0.0"}
    train(data, second, read_recipe(data / "recipe.toml", changes), resume=False, tracking=None)
    one, other = trained_embedder(first).state_dict(), trained_embedder(second).state_dict()
    assert all(torch.allclose(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "change", ["precision=bf16", "losses.proxy_anchor=1", "losses.contrast=1", "schedule.kind=sgdr"]
)
def test_every_way_to_learn_lowers_its_loss(data: Path, tmp_path: Path, change: str) -> None:
    changes = dict([change.split("=")]) | {
        "schedule.epochs": "1",
        "batch.steps": "12",
        "optimizer.lr": "1e-3",
    }
    train(data, tmp_path / "run", read_recipe(data / "recipe.toml", changes), resume=False, tracking=None)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    setting = change.partition("=")[0]
    term = setting.removeprefix("losses.") if setting.startswith("losses.") else "softmax"
    assert sum(line[term] for line in lines[-4:]) < sum(line[term] for line in lines[:4])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: (data / "Gala-0.png").write_bytes(b"\x89PNG\r\n\x1a\nno"), "Gala-0.png"),
        (lambda data: (data / "Gala-0.png").unlink(), "line 2: `image`: there is no file"),
        (lambda data: (data / "recipe.toml").write_text("seed = 1"), "the recipe names no data set"),
        (
            lambda data: (data / "recipe.toml").write_text(
                tiny_shop.RECIPE.replace('domains = ["category"]', 'domains = ["colour"]')
            ),
            "no picture has the label `colour`",
        ),
        (
            lambda data: (
                (data / "recipe.toml").write_text(tiny_shop.RECIPE + "[losses]\ncontrast = 1.0\n"),
                (data / "shop.csv").write_text(
                    (data / "shop.csv").read_text().replace(",catalogue,", ",photo,")
                ),
            ),
            "no product has both a photo and a catalogue picture, which `losses.contrast` needs",
        ),
    ],
)
def test_bad_data_is_refused_before_training(data: Path, tmp_path: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    spoil(data)
    arguments = ["--recipe", str(data / "recipe.toml"), "--data", str(data), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(command, [*arguments, "--no-track"])
    assert isinstance(result.exception, MagpieError)
    assert message in str(result.exception)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_settings_lists_every_setting_with_what_was_changed(data: Path) -> None:
    arguments = ["--recipe", str(data / "recipe.toml"), "--set", "optimizer.lr=3e-4", "--settings", "--json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["optimizer"]["lr"] == 3e-4
