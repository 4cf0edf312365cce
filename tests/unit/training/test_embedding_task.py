"""Which pictures the loss terms move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.training import tiny_shop
from training.datasets.catalogue_of_cards import examples_of
from training.embedding.batches import Batch, EmbeddingBatches
from training.embedding.recipe import EmbeddingRecipe, read_recipe
from training.embedding.task import EmbeddingTask
from training.loop import CPU
from training.models.embedder import Embedder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_shop.make(tmp_path_factory.mktemp("data"))


def gradients(recipe: EmbeddingRecipe, data: Path, *terms: str) -> tuple[Batch, Tensor]:
    """A batch, and how much each of its pictures takes part in `terms`: (N,)."""
    torch.manual_seed(0)
    batches = EmbeddingBatches([e for entry in recipe.data for e in examples_of(entry, data)], recipe)
    teacher = torch.randn(len(batches.examples), 1280)
    task = EmbeddingTask(Embedder(pretrained=False), batches, teacher, CPU).eval()
    batch = next(batches.epoch(0))
    batch.pictures.requires_grad_()
    losses = task(batch)
    torch.stack([losses[term] for term in terms]).sum().backward()  # type: ignore[no-untyped-call]
    assert batch.pictures.grad is not None
    return batch, batch.pictures.grad.abs().amax(dim=(1, 2, 3))


@pytest.mark.parametrize("hold", [False, True])
def test_labels_move_catalogue_pictures_unless_they_are_held(data: Path, hold: bool) -> None:
    recipe = read_recipe(data / "recipe.toml", {"losses.hold_catalogue": str(hold).lower()})
    batch, moved = gradients(recipe, data, "triplet", "softmax", "category", "similar")
    known = batch.product >= 0
    assert (moved[known & ~batch.catalogue] > 0).all()
    assert bool((moved[batch.catalogue] > 0).all()) != hold
    assert bool((moved[batch.catalogue] == 0).all()) == hold


def test_the_teacher_holds_all_but_twins(data: Path) -> None:
    recipe = read_recipe(data / "recipe.toml", {"losses.hold_catalogue": "true"})
    recipe = replace(recipe, batch=replace(recipe.batch, twins=0.5))
    batch, moved = gradients(recipe, data, "distillation", "geometry")
    assert (~batch.as_taken).any()
    assert (moved[batch.as_taken] > 0).all()
    assert (moved[~batch.as_taken] == 0).all()
