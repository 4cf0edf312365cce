"""`python -m training.train embedder`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from training.datasets import clothing_top10, grocery_store
from training.datasets.example import Example
from training.embedding import retrieval
from training.embedding.batches import EmbedderBatches
from training.embedding.recipe import EmbedderRecipe
from training.embedding.runs import torch_run
from training.embedding.task import EmbedderTask, features_of
from training.loop import fit, seed_everything
from training.models.embedder import Embedder
from training.recipes.embedder_default import RECIPE
from training.schedule import warmup_cosine

EXAMPLES = """examples:
  python -m training.train embedder --data ../data --out .training/embedder
  python -m training.train embedder --data ../data --out .training/embedder --resume
  MAGPIE_DATA=../data python -m training.train embedder --out /tmp/try --epochs 1 --threads 2
"""


def training_examples(data: Path) -> list[Example]:
    """Shop photos and catalogue pictures of groceries, and clothes; no query of the evaluation."""
    return [
        *grocery_store.read(data, "train"),
        *grocery_store.read(data, "gallery"),
        *clothing_top10.read(data, "train"),
    ]


def train(data: Path, run_dir: Path, recipe: EmbedderRecipe, *, resume: bool) -> Embedder:
    """Train, leaving checkpoints and metrics in `run_dir`."""
    seed_everything(recipe.seed)
    batches = EmbedderBatches(training_examples(data), recipe)
    embedder = Embedder(frozen_stages=recipe.frozen_stages)
    plain = tqdm(batches.plain(), total=-(-len(batches.examples) // 64), desc="features before training")
    embedder.eval()
    with torch.no_grad():
        teacher = torch.cat([features_of(embedder, pictures) for pictures in plain])
    embedder.start_from_principal_components(teacher)
    task = EmbedderTask(embedder, batches, teacher, recipe)

    backbone = [p for p in embedder.features.parameters() if p.requires_grad]
    proxies = [*task.products.parameters(), *task.categories.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": backbone, "lr": recipe.backbone_rate},
            {"params": embedder.heads.parameters(), "lr": recipe.head_rate},
            {"params": proxies, "lr": recipe.proxy_rate},
        ],
        weight_decay=recipe.weight_decay,
    )
    schedule = warmup_cosine(optimizer, warmup=recipe.warmup, total=recipe.epochs * len(batches))

    run = torch_run(embedder)

    def after_epoch() -> dict[str, float]:
        return retrieval.grocery(run, recipe.input, data) | retrieval.lego(run, recipe.input, data)

    fit(
        task,
        optimizer,
        schedule,
        batches,
        run_dir,
        epochs=recipe.epochs,
        resume=resume,
        after_epoch=after_epoch,
    )
    return embedder


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `embedder` to the trainer's commands."""
    parser = commands.add_parser(
        "embedder",
        help="train the three embedding spaces",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs, help="default %(default)s")
    parser.set_defaults(command=command)


def command(arguments: argparse.Namespace) -> None:
    recipe = replace(RECIPE, epochs=arguments.epochs, seed=arguments.seed)
    print(asdict(recipe), flush=True)
    train(arguments.data, arguments.out, recipe, resume=arguments.resume)
