"""What one bundle brings to a process, each part made when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from magpie.index.hash_model import HashModel
from magpie.ranking.bundled_configs import bundled_configs
from magpie.ranking.calibration import Calibration
from magpie.ranking.hubness import Hubness
from magpie.v1.ranking_config_pb2 import RankingConfig
from magpie.vision.box_policy import QueryPolicy
from magpie.vision.bundle import Bundle
from magpie.vision.detector import Detector
from magpie.vision.embedder import Embedder
from magpie.vision.model_card import InputSpec


class BundleModels:
    """A bundle's models and what was fitted to them. `threads` are those of one model run.

    Every part raises FailedPrecondition, naming the file, if it does not fit the others.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.bundle = bundle
        self._threads = threads

    @property
    def spaces(self) -> Mapping[str, int]:
        """Embedding space -> dimension."""
        return self.bundle.embedder_card.spaces

    @property
    def crop(self) -> InputSpec:
        """How the embedder wants its squares cut."""
        return self.bundle.embedder_card.input

    @property
    def query_policy(self) -> QueryPolicy:
        """What a query photo is searched by."""
        return QueryPolicy.of(self.bundle.detector_card.detection)

    @cached_property
    def detector(self) -> Detector:
        """Finds the objects. Its model loads at the first photo."""
        return Detector(self.bundle.detector_card, self.bundle.folder, self._threads)

    @cached_property
    def embedder(self) -> Embedder:
        """Embeds them. Its model loads at the first crop."""
        return Embedder(self.bundle.embedder_card, self.bundle.folder, self._threads)

    @cached_property
    def calibration(self) -> Calibration | None:
        """What turns a similarity into a probability, if the bundle has it."""
        if self.bundle.calibration is None:
            return None
        return Calibration.load(self.bundle.folder, self.bundle.calibration, self.bundle.embedder_card.sha256)

    @cached_property
    def hubness(self) -> Hubness | None:
        """What candidates pay for lying near to every photo, if the bundle has it."""
        if self.bundle.hubness is None:
            return None
        return Hubness.load(self.bundle.folder, self.bundle.hubness, self.bundle.embedder_card.sha256)

    @cached_property
    def hash_model(self) -> HashModel | None:
        """What codes its vectors, if the bundle has it."""
        if self.bundle.hash is None:
            return None
        return HashModel.load(self.bundle.folder, self.bundle.hash, self.bundle.embedder_card.sha256)

    @cached_property
    def ranking_configs(self) -> Mapping[str, RankingConfig]:
        """Customer -> the config that was fitted for it."""
        return bundled_configs(self.bundle.folder, self.spaces, calibrated=self.calibration is not None)
