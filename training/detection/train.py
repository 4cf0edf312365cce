"""Training a detector, from a recipe to a run folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from magpie.errors import FailedPrecondition, InvalidArgument
from training import recipe_file
from training.detection.batches import DetectionBatches
from training.detection.coco_metrics import coco_figures
from training.detection.contract import Network
from training.detection.distillation import DistillationTask
from training.detection.fit_rcnn import fit_rcnn
from training.detection.measure import in_each_class, judge
from training.detection.proposals import selective_search
from training.detection.recipe import DetectionRecipe
from training.detection.runs import FITTED, recipe_of, torch_run, trained_network
from training.detection.sources import read_pictures
from training.detection.task import DetectionTask
from training.detection.training_time import TrainingTime
from training.device import Device
from training.loop import check_run_folder, fit, seed_everything
from training.models.detectors.rcnn import Rcnn
from training.run_folder import save_recipe
from training.tracking import tracked

DATA = "data.json"  # what a run was trained on, in its folder
POOLS = Path(".training/pools")


def train(
    root: Path,
    run_dir: Path,
    recipe: DetectionRecipe,
    *,
    resume: bool,
    teacher: Path | None = None,
    tracking: str | None = "",
    pools: Path = POOLS,
    watch: Callable[[Mapping[str, float]], None] = lambda _figures: None,
) -> dict[str, float]:
    """Train, leaving checkpoints and metrics in `run_dir`; the last development figures.

    `root` is the folder of the data sets; `teacher` an ONNX file that labels pictures without boxes;
    `tracking` an MLflow server, "" the local one, None nothing; `watch` is told the development figures after
    every epoch.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    check_run_folder(run_dir, resume=resume)
    if (run_dir / FITTED).exists() and not resume:
        raise FailedPrecondition(f"{run_dir} holds a run already: resume it, or choose another folder")
    pictures = read_pictures(recipe, root, teacher, pools)
    for name, found in pictures.findings.items():
        if found.found:
            tqdm.write(f"{name}: {found.summary()}; `magpie boxes report` lists them", file=sys.stderr)
    seed_everything(recipe.seed)
    device = Device.choose(recipe.precision)
    tqdm.write(f"training on {device}", file=sys.stderr)
    save_recipe(run_dir, recipe)
    (run_dir / DATA).write_text(json.dumps(pictures.summary(recipe), indent=2) + "\n")

    network = recipe.model.build(len(recipe.taxonomy))
    batches = DetectionBatches(
        pictures.pools,
        [entry.share for entry in recipe.data],
        recipe,
        selective_search if network.needs_proposals else None,
    )
    figures: dict[str, float] = {}
    taken = TrainingTime(run_dir, str(device), resume=resume)

    def measured_by(trained: Network) -> dict[str, float]:
        taken.save()
        detect = in_each_class(torch_run(trained.eval(), device.name), recipe.model.input, recipe.taxonomy)
        figures.update(coco_figures(judge(detect, pictures.development), recipe.taxonomy).summary())
        watch(figures)
        return figures

    if isinstance(network, Rcnn):  # the one that gradients do not train
        fitted = _fitted(network.to(device.name), batches, recipe, run_dir, device)
        return measured_by(fitted) if pictures.development else {}
    task = _task(network, recipe, device).to(device.name)
    stages = network.stages()
    of_stages = {id(parameter) for stage in stages for parameter in stage.parameters()}
    heads = [parameter for parameter in network.parameters() if id(parameter) not in of_stages]
    optimizer = recipe.optimizer.build(stages, heads, [])
    schedule = recipe.schedule.rate(optimizer, len(batches))
    average = recipe.optimizer.average(task)
    measured: Any = task if average is None else average.module

    with tracked("magpie-detection", run_dir, recipe_file.flat(asdict(recipe)), tracking) as tracker:
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
            tracker=tracker,
            after_epoch=(lambda: measured_by(measured.network)) if pictures.development else None,
        )
    taken.save()
    return figures


def _fitted(
    network: Rcnn, batches: DetectionBatches, recipe: DetectionRecipe, run_dir: Path, device: Device
) -> Rcnn:
    """R-CNN, fitted to the batches of all epochs and left in `run_dir`; one that is there is read."""
    path = run_dir / FITTED
    if path.exists():
        network.load(path)
        return network
    epochs = range(recipe.schedule.epochs)
    every = (batch.to(device.name) for epoch in epochs for batch in batches.epoch(epoch))
    total = len(epochs) * len(batches)
    counts = fit_rcnn(network, tqdm(every, total=total, desc="R-CNN: features", mininterval=2), recipe.seed)
    network.save(path)
    (run_dir / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "step": 0, **counts}) + "\n")
    return network


def _task(network: Network, recipe: DetectionRecipe, device: Device) -> DetectionTask:
    """Raises InvalidArgument if the run to begin with has other classes, NotFound if there is none."""
    if not recipe.start:
        return DetectionTask(network, device)
    known = recipe_of(Path(recipe.start)).taxonomy
    if recipe.taxonomy[: len(known)] != known:
        raise InvalidArgument(
            "taxonomy",
            f"must begin with the classes of {recipe.start}, in their order: {', '.join(known)}",
        )
    old = trained_network(Path(recipe.start))
    network.take_over(old)
    if recipe.keep.nothing:
        return DetectionTask(network, device)
    if not network.fixed_rows:
        raise InvalidArgument(
            "keep",
            f"{recipe.model.architecture} proposes other boxes than its predecessor, so the two cannot be "
            "compared: set keep.responses and keep.features to 0",
        )
    return DistillationTask(network, old, recipe.keep, device)
