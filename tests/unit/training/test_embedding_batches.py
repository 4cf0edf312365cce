"""What a batch holds, and on what it depends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from magpie.vision.preprocess import Letterbox
from tests.unit.training import tiny_shop
from training.datasets.catalogue_of_cards import examples_of
from training.embedding.batches import UNKNOWN, EmbeddingBatches
from training.embedding.recipe import Batch, EmbeddingRecipe, read_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_shop.make(tmp_path_factory.mktemp("data"))


@pytest.fixture
def recipe(data: Path) -> EmbeddingRecipe:
    return read_recipe(data / "recipe.toml")


def batches_of(recipe: EmbeddingRecipe, data: Path) -> EmbeddingBatches:
    return EmbeddingBatches([e for entry in recipe.data for e in examples_of(entry, data)], recipe)


def test_a_batch_brings_photos_and_catalogue_picture_of_each_product_together(
    data: Path, recipe: EmbeddingRecipe
) -> None:
    batches = batches_of(recipe, data)
    for batch in batches.epoch(0):
        assert batch.pictures.shape == (recipe.batch.pictures, 3, 32, 32)
        for product in torch.unique(batch.product[batch.product != UNKNOWN]):
            rows = batch.rows[batch.product == product].tolist()
            assert sum(batches.examples[row].catalogue for row in rows) == 1
            assert len(set(rows)) == len(rows) == recipe.batch.photos + 1


def test_a_picture_without_product_is_an_item_of_its_own(data: Path, recipe: EmbeddingRecipe) -> None:
    twice = replace(recipe, batch=replace(recipe.batch, views=2))
    batch = next(batches_of(twice, data).epoch(0))
    lone = batch.product == UNKNOWN
    assert torch.equal(batch.item[~lone], batch.product[~lone])
    items, counts = torch.unique(batch.item[lone], return_counts=True)
    assert counts.tolist() == [2] * recipe.batch.lone
    assert not set(items.tolist()) & set(batch.product.tolist())
    first, second = batch.pictures[batch.item == items[0]]
    assert not torch.equal(first, second)


def test_a_missing_label_is_unknown_and_names_are_apart_by_data_set(
    data: Path, recipe: EmbeddingRecipe
) -> None:
    batches = batches_of(recipe, data)
    categories = batches.vocabulary.labels["category"]
    assert categories == ("shop/Apple", "shop/Leek", "wardrobe/hat", "wardrobe/skirt")
    codes = dict(zip([e.path.name for e in batches.examples], batches.labels["category"], strict=True))
    assert codes["wear-5.png"] == UNKNOWN
    assert categories[codes["wear-4.png"]] == "wardrobe/skirt"
    assert (batches.labels["department"][-6:] == UNKNOWN).all()


def test_an_epoch_taken_up_midway_goes_on_with_the_same_batches(data: Path, recipe: EmbeddingRecipe) -> None:
    batches = batches_of(recipe, data)
    whole, rest = list(batches.epoch(4)), list(batches.epoch(4, first_step=1))
    assert len(whole) == len(batches) == 3
    assert torch.equal(whole[1].rows, rest[0].rows)
    assert torch.equal(whole[1].pictures, rest[0].pictures)
    assert not torch.equal(whole[0].pictures, next(batches.epoch(5)).pictures)


def test_loader_processes_make_the_same_batches_and_leave_the_random_state_alone(
    data: Path, recipe: EmbeddingRecipe
) -> None:
    here = list(batches_of(recipe, data).epoch(2))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    there = list(batches_of(replace(recipe, workers=2), data).epoch(2))
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.pictures, other.pictures)
        assert torch.equal(one.labels["category"], other.labels["category"])


def test_a_twin_stands_beside_its_product_in_other_colours_and_carries_no_label(
    data: Path, recipe: EmbeddingRecipe
) -> None:
    beside = replace(recipe, batch=replace(recipe.batch, products=2, twins=0.5, lone=2))
    batch = next(batches_of(beside, data).epoch(0))
    twins = torch.unique(batch.item[~batch.as_taken])
    assert len(twins) == 1
    for twin in twins:
        shown = batch.item == twin
        products = {int(p) for p in batches_of(beside, data).product[batch.rows[shown]]}
        assert len(products) == 1  # photos and catalogue picture of one product
        assert products <= set(batch.product[batch.as_taken].tolist())
        assert (batch.product[shown] == UNKNOWN).all()
        assert all((codes[shown] == UNKNOWN).all() for codes in batch.labels.values())
    assert not set(twins.tolist()) & set(batch.item[batch.as_taken].tolist())


def test_twins_need_their_products_beside_them() -> None:
    with pytest.raises(ValueError, match="twins"):
        Batch(twins=0.6)


def test_shares_decide_how_often_a_data_set_is_drawn(data: Path, recipe: EmbeddingRecipe) -> None:
    shop, wardrobe = recipe.data
    both = (replace(shop, share=3.0), replace(shop, data="shop-again.csv", share=1.0), wardrobe)
    (data / "shop-again.csv").write_text((data / "shop.csv").read_text())
    batches = batches_of(replace(recipe, data=both), data)
    rng = np.random.default_rng(0)
    drawn = [p for _ in range(800) for p in batches._draw_products(rng, recipe.batch.products)]
    again = np.mean([batches.vocabulary.products[p].startswith("shop-again/") for p in drawn])
    # Without replacement, so the smaller share comes a little more often than its quarter.
    assert 0.2 < again < 0.4


def test_rivals_meet_in_a_batch(data: Path, recipe: EmbeddingRecipe) -> None:
    batches = batches_of(replace(recipe, batch=replace(recipe.batch, products=2)), data)
    gala, fuji = (batches.vocabulary.products.index(f"shop/{name}") for name in ("Gala", "Fuji"))
    rng = np.random.default_rng(0)

    def share_of_pairs() -> float:
        draws = [set(batches._draw_products(rng, 2)) for _ in range(300)]
        with_gala = [draw for draw in draws if gala in draw]
        return float(np.mean([fuji in draw for draw in with_gala]))

    before = share_of_pairs()
    batches.rivals.tell([(gala, fuji)])
    assert before < 0.65 < 0.75 < share_of_pairs()


def test_plain_pictures_are_what_serving_sees(data: Path, recipe: EmbeddingRecipe) -> None:
    batches = batches_of(recipe, data)
    (tensor,) = batches.plain([4])
    square = Letterbox(32, 127)(batches.examples[4].load())
    expected = (square.transpose(2, 0, 1).astype(np.float32) - 127) / 128
    np.testing.assert_allclose(tensor[0].numpy(), expected, atol=1e-6)
