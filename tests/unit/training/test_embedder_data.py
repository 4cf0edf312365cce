"""Readers on a made-up folder, augmentation, and what a batch holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from magpie.errors import InvalidArgument
from magpie.vision.preprocess import Letterbox
from training.datasets import clothing_top10, grocery_store, lego_minifig
from training.datasets.augment import Augment
from training.datasets.example import Example
from training.embedding.batches import UNKNOWN, EmbedderBatches
from training.embedding.recipe import EmbedderRecipe

RECIPE = replace(EmbedderRecipe(), size=32, train_size=32, products=2, photos=2, unlabelled=2)


def picture(path: Path, seed: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path.name


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three products with three photos and a catalogue picture each; four clothes; two toys."""
    grocery, clothing, lego = (tmp_path / m.SOURCE for m in (grocery_store, clothing_top10, lego_minifig))
    rows = ["file,split,kind,product,department,category"]
    for seed, product in enumerate(["Gala", "Fuji", "Leek"]):
        kind = "Fruit,Apple" if product != "Leek" else "Vegetables,Leek"
        for n in range(3):
            name = picture(grocery / f"{product}-{n}.png", 10 * seed + n)
            rows.append(f"{name},train,natural,{product},{kind}")
        name = picture(grocery / f"{product}.png", 10 * seed + 9)
        rows.append(f"{name},gallery,iconic,{product},{kind}")
    rows.append(f"{picture(grocery / 'query.png', 99)},val,natural,Gala,Fruit,Apple")
    (grocery / "metadata.csv").write_text("\n".join(rows) + "\n")
    rows = ["file,split,category,sender_id"]
    for n, category in enumerate(["hat", "hat", "hat", "skirt"]):
        rows.append(f"{picture(clothing / f'{n}.png', 200 + n)},train,{category},s{n}")
    (clothing / "metadata.csv").write_text("\n".join(rows) + "\n")
    rows = ["file,product_id,category"]
    rows += [f"{picture(lego / f'{n}.png', 300 + n)},figure-{n},space" for n in range(2)]
    (lego / "metadata.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def examples(data: Path) -> list[Example]:
    return [
        *grocery_store.read(data, "train"),
        *grocery_store.read(data, "gallery"),
        *clothing_top10.read(data, "train"),
    ]


def test_readers_keep_splits_apart_and_say_what_is_known(data: Path) -> None:
    assert [e.path.name for e in grocery_store.read(data, "val")] == ["query.png"]
    gallery = grocery_store.read(data, "gallery")
    assert [(e.product, e.category, e.department, e.catalogue) for e in gallery] == [
        ("Gala", "Apple", "Fruit", True),
        ("Fuji", "Apple", "Fruit", True),
        ("Leek", "Leek", "Vegetables", True),
    ]
    assert not any(e.catalogue for e in grocery_store.read(data, "train"))
    clothes = clothing_top10.read(data, "train")
    assert [(e.product, e.category, e.sender) for e in clothes][-1] == (None, "skirt", "s3")
    assert [e.product for e in lego_minifig.read(data)] == ["figure-0", "figure-1"]
    assert gallery[0].load().size == (30, 40)


def test_a_missing_folder_column_or_picture_is_named(data: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"metadata\.csv is missing"):
        lego_minifig.read(data / "elsewhere")
    (data / lego_minifig.SOURCE / "0.png").unlink()
    with pytest.raises(InvalidArgument, match=r"line 2: .*0\.png is missing"):
        lego_minifig.read(data)
    (data / clothing_top10.SOURCE / "metadata.csv").write_text("file,split,category\n")
    with pytest.raises(InvalidArgument, match="lacks the columns sender_id"):
        clothing_top10.read(data, "train")


def test_a_batch_brings_photos_and_catalogue_picture_of_each_product_together(data: Path) -> None:
    batches = EmbedderBatches(examples(data), RECIPE)
    for batch in batches.epoch(0):
        assert len(batch.pictures) == RECIPE.batch_size
        assert batch.pictures.shape[1:] == (3, 32, 32)
        for product in torch.unique(batch.product[batch.product != UNKNOWN]):
            rows = batch.rows[batch.product == product].tolist()
            assert sum(batches.examples[row].catalogue for row in rows) == 1
            assert len(set(rows)) == len(rows) == RECIPE.photos + 1


def test_a_picture_without_product_is_an_item_of_its_own_seen_twice(data: Path) -> None:
    batch = next(EmbedderBatches(examples(data), RECIPE).epoch(0))
    lone = batch.product == UNKNOWN
    assert torch.equal(batch.item[~lone], batch.product[~lone])
    items, counts = torch.unique(batch.item[lone], return_counts=True)
    assert counts.tolist() == [2] * RECIPE.unlabelled
    assert not set(items.tolist()) & set(batch.product.tolist())
    first, second = batch.pictures[batch.item == items[0]]
    assert not torch.equal(first, second)


def test_an_epoch_taken_up_midway_goes_on_with_the_same_batches(data: Path) -> None:
    batches = EmbedderBatches(examples(data), RECIPE)
    assert len(batches) == 2
    whole, rest = list(batches.epoch(4)), list(batches.epoch(4, first_step=1))
    assert torch.equal(whole[1].rows, rest[0].rows)
    assert torch.equal(whole[1].pictures, rest[0].pictures)
    assert not torch.equal(whole[0].pictures, next(batches.epoch(5)).pictures)


def test_augmentation_hangs_on_its_generator_and_off_means_serving() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8))
    letterbox = Letterbox(48, 127)
    first, again, other = (Augment()(image, letterbox, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (48, 48, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    off = Augment(crop=0, shrinks=0, rotates=0, flip=0, jitter=0, blur=0, jpeg=0)
    assert np.array_equal(off(image, letterbox, np.random.default_rng(1)), letterbox(image))
