"""A sweep tries what its ranges say, goes on after a kill, and leaves a recipe; its numbers are in MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner

from magpie.errors import InvalidArgument
from tests.unit.training import tiny_shop
from training.commands.sweep import command
from training.embedding.recipe import read_recipe
from training.embedding.sweep import read_plan
from training.tracking import MlflowTracker

SWEEP = """
base = "recipe.toml"
development.share = 0.34
schedule.epochs = 1
batch.steps = 1
[sweep]
trials = 2
objective = ["shop product"]
[sweep.ranges]
"optimizer.lr" = { low = 1e-5, high = 1e-3, log = true }
"batch.photos" = { low = 1, high = 3, step = 1 }
"schedule.kind" = { choices = ["cosine", "step"] }
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tiny_shop.make(tmp_path / "data")
    (folder / "sweep.toml").write_text(SWEEP)
    return folder


def test_a_sweep_goes_on_where_it_was_and_its_best_is_a_recipe(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--recipe", str(data / "sweep.toml"), "--data", str(data), "--out", "sweep", "--json"]
    first = CliRunner().invoke(command, [*arguments, "--threads", "1"])
    assert first.exit_code == 0, first.output
    assert sorted(path.name for path in Path("sweep").glob("trial-*")) == ["trial-000", "trial-001"]

    again = CliRunner().invoke(command, [*arguments, "--threads", "1"])  # all trials are done
    assert again.exit_code == 0, again.output
    answer = json.loads(again.stdout)
    assert answer == json.loads(first.stdout)
    assert not Path("sweep/trial-002").exists()

    best = read_recipe(Path(answer["recipe"]))
    assert best.optimizer.lr == answer["best"]["optimizer.lr"]
    assert 1e-5 <= best.optimizer.lr <= 1e-3
    assert best.batch.photos in (1, 2, 3)
    assert best.schedule.kind in ("cosine", "step")
    assert best.data == read_recipe(data / "recipe.toml").data

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/.training/mlflow/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'magpie-embedding'")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert max(run.data.metrics["shop product"] for run in runs) == answer["value"]
    assert {float(run.data.params["optimizer.lr"]) for run in runs} >= {best.optimizer.lr}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"optimizer.lr"', '"optimizer.lrr"', "`optimizer.lrr` is unknown: did you mean `optimizer.lr`?"),
        ("low = 1e-5", "low = 1.0", "`low` below `high`, got 1 to 0.001"),
        ("low = 1e-5", "low = 0.0", "`log` needs `low` above 0"),
        ("trials = 2", "tirals = 2", "`sweep.tirals` is unknown: did you mean `trials`?"),
        ("[sweep]\ntrials", "[swep]\ntrials", "has no table [sweep]"),
    ],
)
def test_mistakes_in_a_plan_are_named(data: Path, old: str, new: str, message: str) -> None:
    text = SWEEP.replace(old, new)
    if "[swep]" in text:
        text = text.replace("[sweep.ranges]", "[swep.ranges]")
    (data / "sweep.toml").write_text(text)
    with pytest.raises(InvalidArgument) as error:
        read_plan(data / "sweep.toml", {})
    assert message in str(error.value)


def test_an_objective_that_is_no_figure_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (data / "sweep.toml").write_text(SWEEP.replace("shop product", "shop prodcut"))
    result = CliRunner().invoke(command, ["--recipe", str(data / "sweep.toml"), "--data", str(data)])
    assert isinstance(result.exception, InvalidArgument)
    assert "`shop prodcut` is no development figure: did you mean `shop product`?" in str(result.exception)


def test_a_run_that_its_database_does_not_know_is_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was begun on another machine."""
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    first = MlflowTracker("magpie-embedding", run_dir, {"seed": 1})
    assert MlflowTracker("magpie-embedding", run_dir, {"seed": 1}).run_id == first.run_id
    (run_dir / "mlflow_run").write_text("0" * 32)
    tracker = MlflowTracker("magpie-embedding", run_dir, {"seed": 1})
    tracker.log({"loss": 1.5, "recall@1": 0.5}, 3)
    assert tracker.run_id not in (first.run_id, "0" * 32)
    assert (run_dir / "mlflow_run").read_text() == tracker.run_id
