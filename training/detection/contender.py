"""A detector to be measured, wherever it comes from: a bundle, a card, a run, a teacher's ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from magpie.errors import InvalidArgument
from magpie.vision.bundle import MANIFEST, Bundle
from magpie.vision.detector import Detector, detection_spec
from magpie.vision.model_card import InputSpec, ModelCard
from training.detection.export import export_graph
from training.detection.measure import Detect, Run, by_teacher, class_agnostic, in_each_class, served
from training.detection.recipe import DetectionRecipe
from training.detection.runs import is_of_detector, onnx_run, recipe_of, trained_network
from training.detection.teacher import Teacher
from training.run_folder import RECIPE

ANY = ("product",)  # the taxonomy of a detector that is asked for places alone


@dataclass(frozen=True)
class Contender:
    """What is measured. Models run in onnxruntime on one thread, as in a small function."""

    title: str
    taxonomy: tuple[str, ...]
    detect: Detect  # as serving does: a box has one class
    in_each_class: Detect  # for COCO's figures; of one class, the same
    shown_from: float | None = None  # the card's score threshold; None: that of the best F1
    recipe: DetectionRecipe | None = None  # of a run
    serving: Detector | None = None  # as a search runs it, with its card's suppression; None: it has no card

    @property
    def names_classes(self) -> bool:
        """Whether it tells classes apart."""
        return self.taxonomy != ANY

    def class_agnostic(self) -> Contender:
        """The same with all classes taken as one."""
        places = class_agnostic(self.detect)
        return replace(self, taxonomy=ANY, detect=places, in_each_class=places)


def contender(path: Path) -> Contender:
    """Of a bundle's folder, a detector's card or a run's folder.

    Raises InvalidArgument if `path` is none of them, FailedPrecondition if a card does not fit its model,
    NotFound if the run has no checkpoint.
    """
    if (path / MANIFEST).is_file():
        bundle = Bundle.load(path)
        return _of_card(bundle.id, bundle.detector_card, path)
    if path.suffix == ".json":
        card = ModelCard.load(path)
        return _of_card(f"{card.name} {card.version}", card, path.parent)
    if (path / RECIPE).is_file():
        return _of_run(path)
    raise InvalidArgument(
        str(path),
        f"is no detector: needs a bundle's folder ({MANIFEST}), a detector's card (.json) or the folder of a "
        f"run of `magpie train detection` ({RECIPE})",
    )


def of_teacher(model: Path) -> Contender:
    """Of an ONNX file, class-agnostic. Raises InvalidArgument if it or its labels are missing."""
    detect = by_teacher(Teacher(model))
    return Contender(model.stem, ANY, detect, detect)


def _of_card(title: str, card: ModelCard, folder: Path) -> Contender:
    spec = detection_spec(card)
    run = onnx_run(card.verified_model(folder))
    own = _of_network(title, run, card.input, spec.taxonomy)
    return replace(own, shown_from=spec.score_threshold, serving=Detector(card, folder, threads=1))


def _of_run(folder: Path) -> Contender:
    if not is_of_detector(folder):
        raise InvalidArgument(
            str(folder), "is an embedder's run: `magpie evaluate-model` measures its bundle"
        )
    recipe = recipe_of(folder)
    with TemporaryDirectory() as scratch:
        model = Path(scratch) / "detector.onnx"
        export_graph(trained_network(folder), model, recipe.model.input)
        run = onnx_run(model)
    return replace(_of_network(folder.name, run, recipe.model.input, recipe.taxonomy), recipe=recipe)


def _of_network(title: str, run: Run, spec: InputSpec, taxonomy: tuple[str, ...]) -> Contender:
    return Contender(title, taxonomy, served(run, spec, taxonomy), in_each_class(run, spec, taxonomy))
