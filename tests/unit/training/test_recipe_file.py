"""Recipes: differences from defaults, and every mistake named with the nearest right word."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from magpie.errors import InvalidArgument
from training import recipe_file
from training.detection.recipe import DetectionRecipe
from training.embedding.recipe import EmbeddingRecipe, read_recipe
from training.optimizer import Optimizer

RECIPES = sorted((Path(__file__).parents[3] / "training" / "recipes").glob("*.toml"))


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_sound_and_names_data(path: Path) -> None:
    assert read_recipe(path).data


def test_a_recipe_states_differences_only(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'optimizer.lr = 3e-4\n[[data]]\ndata = "shop.csv"\nsplits = ["train"]\n')
    read = read_recipe(path, {"losses.triplet": "1", "schedule.kind": "sgdr", "domains": '["brand"]'})
    assert read.optimizer.lr == 3e-4
    assert read.losses.triplet == 1.0
    assert read.schedule.kind == "sgdr"
    assert read.domains == ("brand",)
    assert read.data[0].splits == ("train",)
    assert recipe_file.differences(read).keys() == {
        "optimizer.lr", "losses.triplet", "schedule.kind", "domains", "data",
    }  # fmt: skip


def test_a_base_lies_under_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('seed = 7\noptimizer.lr = 1.0\n[[data]]\ndata = "a"\n')
    read = read_recipe(recipe(tmp_path, 'base = "base.toml"\noptimizer.ema = 0.5\n'))
    assert (read.seed, read.optimizer.lr, read.optimizer.ema) == (7, 1.0, 0.5)


def test_a_table_changes_what_it_names_and_leaves_the_recipe_s_own_defaults(tmp_path: Path) -> None:
    """A detector's defaults are not those of any optimizer."""
    plain = DetectionRecipe()
    assert plain.optimizer != Optimizer()
    read = recipe_file.read(DetectionRecipe, recipe(tmp_path, "[optimizer]\nlr = 1e-3\n"))
    assert read.optimizer == replace(plain.optimizer, lr=1e-3)
    assert recipe_file.differences(read) == {"optimizer.lr": 1e-3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede = 3", "`sede` is unknown: did you mean `seed`?"),
        ("optimizer.lrr = 3", "`optimizer.lrr` is unknown: did you mean `lr`?"),
        ("optimizer.zzzzzz = 3", "`optimizer.zzzzzz` is unknown; there is clip_norm, "),
        ('optimizer.lr = "fast"', "`optimizer.lr` must be a number, got 'fast'"),
        ("optimizer = 3", "`optimizer` must be a table, got 3"),
        ("seed = 1.5", "`seed` must be a whole number, got 1.5"),
        ("seed = true", "`seed` must be a whole number, got True"),
        ('schedule.kind = "cosin"', "must be one of `cosine`, `sgdr`, `step`: did you mean `cosine`?"),
        ("augment.area = [0.1]", "`augment.area` must be a list of 2 values"),
        ("augment.area = 0.1", "`augment.area` must be a list"),
        ("level_weights = [1.0]", "one weight a level"),
        ("schedule.epochs = 0", "schedule: epochs and cycle must be above 0"),
        ("[[data]]\nsplits = []", "`data[0].data` is missing"),
        ("seed = = 3", "is no TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        read_recipe(recipe(tmp_path, text))
    assert message in str(error.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"nowhere\.toml: No such file"):
        read_recipe(tmp_path / "nowhere.toml")


def test_what_a_run_keeps_reads_back_the_same(tmp_path: Path) -> None:
    read = read_recipe(recipe(tmp_path, 'augment.crop = 0.25\n[[data]]\ndata = "x"\nwithout = {a = ["b"]}\n'))
    assert recipe_file.build(EmbeddingRecipe, asdict(read), "kept") == read


def test_every_setting_of_the_loss_says_what_it_means() -> None:
    documented = {key: meaning for key, _, meaning in recipe_file.documented(EmbeddingRecipe())}
    assert documented["losses.triplet"] == "batch-hard, over siamese views of products"
    assert documented["hard_negatives.every"].startswith("epochs between minings")
    assert len(documented) == len(recipe_file.flat(asdict(EmbeddingRecipe())))
    silent = [key for key, meaning in documented.items() if not meaning]
    assert len(silent) < 0.4 * len(documented)  # those whose name or the line above says it
