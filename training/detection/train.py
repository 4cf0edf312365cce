"""`python -m training.train detector`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.vision.preprocess import Letterbox
from training.datasets import coco_boxes
from training.datasets.catalogue_of_cards import DataEntry, examples_of
from training.datasets.composites import CompositeSource, photographed_cutouts, rendered_cutouts
from training.detection import photos
from training.detection.batches import DetectorBatches
from training.detection.labelled_image import LabelledImage
from training.detection.measure import measure
from training.detection.pool import Pool
from training.detection.recipe import DetectorRecipe
from training.detection.runs import torch_run
from training.detection.task import DetectorTask
from training.detection.teacher import Teacher
from training.loop import fit, seed_everything
from training.models.detector import Detector, ServedDetector
from training.recipes.detector_default import RECIPE
from training.schedule import Schedule

EXAMPLES = """examples:
  python -m training.train detector --data ../data --teacher ../teacher.onnx --out .training/detector --bf16
  python -m training.train detector --data ../data --teacher ../teacher.onnx --out .training/detector --resume
  python -m training.train detector --data ../data --teacher ../teacher.onnx --out /tmp/try --epochs 1
"""


def pools(data: Path, teacher: Teacher, run_dir: Path, recipe: DetectorRecipe) -> dict[str, Pool]:
    """Every source's pictures, from `run_dir` if an earlier run left them there."""

    def composites() -> Iterable[LabelledImage]:
        coco, cards = data / "coco-open-det", data / "playing-cards-det"
        shop = [example.path for example in examples_of(DataEntry("grocery-store", splits=("train",)), data)]
        home = [example.path for example in examples_of(DataEntry("clothing-top10", splits=("train",)), data)]
        scenes = [p.path for p in (*coco_boxes.read(coco, "train2017"), *coco_boxes.read(cards, "train"))]
        gallery = [
            example.path for example in examples_of(DataEntry("grocery-store", splits=("gallery",)), data)
        ]
        source = CompositeSource(
            photographed_cutouts(gallery),
            rendered_cutouts(recipe.rendered),
            [*shop, *home[::4], *scenes],
        )
        for scene in range(recipe.composites):
            yield source.draw(np.random.default_rng([recipe.seed, scene]))

    sources: dict[str, Callable[[], Iterable[LabelledImage]]] = {
        "composites": composites,
        "cards": lambda: photos.annotated(data / "playing-cards-det", "train"),
        "fruit": lambda: photos.annotated(data / "mslearn-fruit-det"),
        "coco": lambda: photos.annotated(data / "coco-open-det", "train2017"),
        "clothes": lambda: photos.clothes(data, teacher),
        "groceries": lambda: photos.groceries(data, teacher),
    }
    letterbox = Letterbox(recipe.input.size, recipe.input.fill)
    made = {}
    for name, images in sources.items():
        pool = Pool.load(run_dir / "pools" / name)
        if pool is None:
            pool = Pool.build(tqdm(images(), desc=f"{name}: pictures", mininterval=2), letterbox)
            pool.save(run_dir / "pools" / name)
        made[name] = pool
    return made


def train(
    data: Path, teacher: Teacher, run_dir: Path, recipe: DetectorRecipe, *, resume: bool, bf16: bool
) -> Detector:
    """Train, leaving pools, checkpoints and metrics in `run_dir`."""
    seed_everything(recipe.seed)
    batches = DetectorBatches(pools(data, teacher, run_dir, recipe), recipe)
    detector = Detector(frozen_stages=recipe.frozen_stages)
    task = DetectorTask(detector, recipe.box_weight, bf16=bf16)

    backbone = [p for p in detector.backbone.parameters() if p.requires_grad]
    inside = {id(p) for p in detector.backbone.parameters()}
    heads = [p for p in detector.parameters() if id(p) not in inside]
    optimizer = torch.optim.AdamW(
        [{"params": backbone, "lr": recipe.backbone_rate}, {"params": heads, "lr": recipe.head_rate}],
        weight_decay=recipe.weight_decay,
    )
    schedule = Schedule(recipe.epochs, warmup=recipe.warmup).rate(optimizer, len(batches))
    run = torch_run(ServedDetector(detector))

    def after_epoch() -> dict[str, float]:
        return measure(run, recipe.input, data)

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
    return detector


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `detector` to the trainer's commands."""
    parser = commands.add_parser(
        "detector",
        help="train the product detector",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--teacher", type=Path, required=True, help="ONNX file of the labelling detector")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs, help="default %(default)s")
    parser.add_argument(
        "--composites", type=int, default=RECIPE.composites, help="scenes; default %(default)s"
    )
    parser.add_argument(
        "--bf16", action="store_true", help="network in bfloat16: faster on CPUs that have it"
    )
    parser.set_defaults(command=command)


def command(arguments: argparse.Namespace) -> None:
    recipe = replace(RECIPE, epochs=arguments.epochs, composites=arguments.composites, seed=arguments.seed)
    print(asdict(recipe), flush=True)
    teacher = Teacher(arguments.teacher)
    train(arguments.data, teacher, arguments.out, recipe, resume=arguments.resume, bf16=arguments.bf16)
