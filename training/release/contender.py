"""What is compared: a bundle, or the ImageNet backbone as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magpie.ranking.hubness import Hubness
from magpie.vision.bundle import Bundle
from magpie.vision.bundle_models import BundleModels
from magpie.vision.model_card import InputSpec
from training.embedding.retrieval import Run
from training.embedding.runs import imagenet_run, onnx_run
from training.evaluation.measure import measure_set, read_set
from training.evaluation.result import SetResult
from training.evaluation.suite import EvaluationSet
from training.evaluation.vector_cache import VectorCache
from training.models import backbone

IMAGENET = "imagenet"
_IMAGENET_SIZE = 224  # px, what the backbone was trained at
# On white: of the grounds that were tried the one it does best on, so that nobody is compared with less.
_IMAGENET_SPEC = InputSpec("image", _IMAGENET_SIZE, backbone.MEAN, backbone.SCALE, fill=255)


@dataclass(frozen=True)
class Contender:
    """An embedder that can be run. Two of the same `weights` and `spec` give the same vectors."""

    title: str
    weights: str  # SHA-256, or `imagenet`
    run: Run
    spec: InputSpec
    hubness: Hubness | None = None


def contender(name: str) -> Contender:
    """Of a bundle's folder, or of the word `imagenet`. Raises FailedPrecondition naming the file."""
    if name == IMAGENET and not Path(name).exists():
        return Contender("ImageNet backbone", IMAGENET, imagenet_run(), _IMAGENET_SPEC)
    bundle = Bundle.load(Path(name))
    card = bundle.embedder_card
    path = card.verified_model(bundle.folder)
    hubness = BundleModels(bundle, threads=1).hubness
    return Contender(f"{bundle.id} ({name})", card.sha256, onnx_run(path), card.input, hubness)


def pictures(entries: Sequence[EvaluationSet], root: Path) -> int:
    """How many different pictures the sets have: each is embedded once. Raises InvalidArgument."""
    paths = set()
    for entry in entries:
        queries, gallery = read_set(entry, root)
        paths |= {query.example.path for query in queries} | {example.path for example in gallery}
    return len(paths)


def measure(
    one: Contender, entries: Sequence[EvaluationSet], root: Path, cache: VectorCache
) -> list[SetResult]:
    """Every set in its own space. Raises InvalidArgument if the model has no such space."""
    return [measure_set(one.run, one.spec, entry, root, cache=cache) for entry in entries]
