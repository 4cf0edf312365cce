"""Training the embedder, from a recipe to a run folder."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.errors import InvalidArgument
from magpie.tables.problems import BadFile, Problem
from training import recipe_file
from training.datasets import near_duplicates
from training.datasets.before_training import judge
from training.datasets.catalogue_of_cards import examples_of
from training.datasets.development import leave_out_products, split_development
from training.datasets.example import Example
from training.datasets.measured_picture import measure_all
from training.datasets.report import DataReport, report
from training.datasets.visits import visits
from training.device import Device
from training.embedding.batches import EmbeddingBatches
from training.embedding.hard_negatives import read_bad_cases
from training.embedding.recipe import EmbeddingRecipe
from training.embedding.retrieval import development_figures, unseen_figures
from training.embedding.runs import start_from, torch_run
from training.embedding.task import EmbeddingTask, features_of
from training.loop import check_run_folder, fit, seed_everything
from training.models.embedder import Embedder
from training.run_folder import save_recipe
from training.tracking import tracked

DATA = "data.json"  # what a run was trained on, in its folder


@dataclass(frozen=True)
class Pictures:
    """What a run trains on, steers by, and has left out."""

    train: list[Example]
    development: list[Example]
    left_out: list[Example]
    left_out_products: tuple[str, ...]

    def summary(self) -> dict[str, object]:
        """For the run folder and the model card."""
        counts = Counter(example.dataset for example in self.train)
        return {
            "train": dict(counts),
            "development": dict(Counter(example.dataset for example in self.development)),
            "products": sorted({e.product_name for e in self.train if e.product_name is not None}),
            "left_out": sorted(self.left_out_products),
        }


def read_pictures(
    recipe: EmbeddingRecipe,
    root: Path,
    cache: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Pictures, DataReport]:
    """The pictures that a recipe names, divided, and the report of them.

    Every picture is read once and measured; `cache` keeps that, `advance` is called for each. Near-duplicates
    go to the same side. Raises InvalidArgument or BadFile naming the data set, file or class, and the way
    out.
    """
    if not recipe.data:
        raise InvalidArgument("data", "the recipe names no data set: add [[data]] with data = NAME or a path")
    kept: list[Example] = []
    left_out: list[Example] = []
    names: tuple[str, ...] = ()
    for entry in recipe.data:
        examples = examples_of(entry, root)
        if recipe.leave_out.products and entry.title == (recipe.leave_out.data or recipe.data[0].title):
            examples, gone, names = leave_out_products(
                examples, recipe.leave_out.products, recipe.leave_out.seed
            )
            left_out += gone
        kept += examples
    held_out = [example for entry in recipe.held_out for example in examples_of(entry, root)]
    measured, unreadable = measure_all((e.path for e in (*kept, *held_out)), cache, advance)
    readable = [example for example in kept if example.path not in unreadable]
    learnt, development = split_development(
        readable,
        recipe.development.share,
        recipe.seed,
        near_duplicates.alike(measured),
        visits(readable, measured) if recipe.development.visits else None,
    )
    broken = [example for example in kept if example.path in unreadable]
    found = judge(
        report([*kept, *held_out], measured, unreadable),
        [*learnt, *broken],
        development,
        held_out,
        columns=tuple(dict.fromkeys((*recipe.taxonomy, *recipe.domains))),
        identity=recipe.losses.learn_identity,
        catalogue=bool(recipe.losses.contrast),
        allow_near_duplicates=recipe.development.allow_near_duplicates,
        skip_unreadable=recipe.skip_unreadable,
    )
    if found.refusals:
        raise BadFile("training data", [Problem(0, text) for text in found.refusals])
    return Pictures(learnt, development, left_out, names), found


def train(
    root: Path,
    run_dir: Path,
    recipe: EmbeddingRecipe,
    *,
    resume: bool,
    tracking: str | None = "",
    watch: Callable[[Mapping[str, float]], None] = lambda _figures: None,
) -> dict[str, float]:
    """Train, leaving checkpoints and metrics in `run_dir`; the last development figures.

    `root` is the folder of the data sets; `tracking` an MLflow server, "" the local one, None nothing;
    `watch` is told the development figures after every epoch.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    check_run_folder(run_dir, resume=resume)
    with tqdm(desc="reading pictures", unit="") as bar:
        pictures, found = read_pictures(recipe, root, run_dir / "pictures.jsonl", bar.update)
    for warning in found.warnings:
        tqdm.write(f"warning: {warning}", file=sys.stderr)
    seed_everything(recipe.seed)
    device = Device.choose(recipe.precision)
    tqdm.write(f"training on {device}", file=sys.stderr)
    examples, pairs = _with_bad_cases(pictures.train, recipe, root)
    batches = EmbeddingBatches(examples, recipe)
    batches.rivals.tell(pairs)
    save_recipe(run_dir, recipe)
    (run_dir / DATA).write_text(json.dumps(pictures.summary(), indent=2) + "\n")

    embedder = Embedder(recipe.model.spaces, frozen_stages=recipe.model.frozen_stages)
    teacher = _teacher(embedder, batches, run_dir, device, resume=resume)
    embedder.start_from_principal_components(teacher)
    task = EmbeddingTask(embedder, batches, teacher, device)
    if recipe.start:
        start_from(task, Path(recipe.start))
    task = task.to(device.name)
    optimizer = recipe.optimizer.build(embedder.features.layers, embedder.heads.parameters(), task.proxies())
    schedule = recipe.schedule.rate(optimizer, len(batches))
    average = recipe.optimizer.average(task)
    averaged: Any = task if average is None else average.module
    measured: Embedder = averaged.embedder
    figures: dict[str, float] = {}

    def mine(epoch: int) -> None:
        every = recipe.hard_negatives.every
        if every and epoch and epoch % every == 0 and len(batches.vocabulary.products) > 1:
            rows = np.flatnonzero(batches.product >= 0)
            vectors = _identity(embedder, batches, rows.tolist(), device)
            confused = batches.rivals.mine(vectors, batches.product[rows], recipe.hard_negatives.rivals)
            words = f"{confused:.1%} of the training pictures lie nearest to another product"
            tqdm.write(f"hard negatives: {words}", file=sys.stderr)

    def measure() -> dict[str, float]:
        run = torch_run(measured.eval(), device.name)
        catalogue = [example for example in pictures.train if example.catalogue]
        development = pictures.development
        figures.update(development_figures(run, recipe.model.input, development, catalogue, recipe.domains))
        figures.update(unseen_figures(run, recipe.model.input, pictures.left_out, catalogue))
        watch(figures)
        return figures

    with tracked("magpie-embedding", run_dir, recipe_file.flat(asdict(recipe)), tracking) as tracker:
        fit(
            task,
            optimizer,
            schedule,
            batches,
            run_dir,
            epochs=recipe.schedule.epochs,
            resume=resume,
            clip_norm=recipe.optimizer.clip_norm,
            device=device,
            average=average,
            also={"rivals": batches.rivals},
            tracker=tracker,
            before_epoch=mine,
            after_epoch=measure if pictures.development or pictures.left_out else None,
        )
    return figures


def _with_bad_cases(
    examples: list[Example], recipe: EmbeddingRecipe, root: Path
) -> tuple[list[Example], list[tuple[int, int]]]:
    """The training pictures with the photos of bad cases, and the pairs that were confused."""
    if not recipe.hard_negatives.file:
        return examples, []
    products = sorted({e.product_name for e in examples if e.product_name is not None})
    pairs, photos = read_bad_cases(root / recipe.hard_negatives.file, products)
    labels = {(e.dataset, e.product): e.labels for e in examples}
    known = {example.path.resolve() for example in examples}
    new = [p for p in photos if p.path.resolve() not in known]
    return [*examples, *(replace(p, labels=labels[p.dataset, p.product]) for p in new)], pairs


@torch.no_grad()
def _teacher(
    embedder: Embedder, batches: EmbeddingBatches, run_dir: Path, device: Device, *, resume: bool
) -> Tensor:
    """ImageNet features of every example, (M, 1280); kept in the run folder for a resumed run."""
    path = run_dir / "teacher.npy"
    if resume and path.is_file():
        known = np.load(path)
        if len(known) == len(batches.examples):
            return torch.from_numpy(known)
    embedder.eval().to(device.name)
    plain = tqdm(batches.plain(), total=-(-len(batches.examples) // 64), desc="features before training")
    features = torch.cat([features_of(embedder, pictures.to(device.name)).cpu() for pictures in plain])
    partial = path.with_suffix(".partial.npy")
    np.save(partial, features.numpy())
    partial.replace(path)
    embedder.to("cpu")
    return features


@torch.no_grad()
def _identity(
    embedder: Embedder, batches: EmbeddingBatches, rows: Sequence[int], device: Device
) -> np.ndarray:
    """(N, D), unit norm."""
    embedder.eval()
    plain = tqdm(batches.plain(rows), total=-(-len(rows) // 64), desc="mining hard negatives")
    parts = [embedder(pictures.to(device.name))["identity"].cpu() for pictures in plain]
    return torch.cat(parts).numpy()
