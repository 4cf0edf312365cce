"""A bundle: one release of models that belong together, in one folder.

`bundle.json` holds `name`, `version`, the file names of the cards of `detector` and `embedder` and, where the
bundle has them, of its `hash` model, its `calibration` and its `hubness`. `customers/C/ranking.json` is the
ranking config that was fitted for customer C. Vectors of different bundles are never compared, so the
bundle's id stands beside every vector.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from magpie.errors import FailedPrecondition
from magpie.vision.detector import detection_spec
from magpie.vision.model_card import ModelCard

MANIFEST = "bundle.json"
_FIELDS = ("name", "version", "detector", "embedder")
_OPTIONAL = ("hash", "calibration", "hubness")
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.IGNORECASE)


@dataclass(frozen=True)
class Bundle:
    """What serving needs to know of a release. The models beside the cards load when they are first run."""

    name: str
    version: str
    folder: Path
    detector_card: ModelCard
    embedder_card: ModelCard
    hash: str | None = None  # file name in the folder; None: the bundle has none
    calibration: str | None = None
    hubness: str | None = None

    @property
    def id(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read the manifest and its cards. Raises FailedPrecondition naming the file and the fault."""
        path = folder / MANIFEST
        try:
            manifest = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise FailedPrecondition(f"bundle {path}: {error}") from error
        if not isinstance(manifest, dict) or set(manifest) - set(_OPTIONAL) != set(_FIELDS):
            raise FailedPrecondition(
                f"bundle {path} must be an object of {', '.join(_FIELDS)} and, as you like, "
                f"{', '.join(_OPTIONAL)}"
            )
        for field in manifest:
            if not isinstance(manifest[field], str) or not _WORD.fullmatch(manifest[field]):
                raise FailedPrecondition(f"bundle {path}: {field} must match {_WORD.pattern}")
        detector_card = ModelCard.load(folder / manifest["detector"])
        embedder_card = ModelCard.load(folder / manifest["embedder"])
        detection_spec(detector_card)
        if embedder_card.kind != "embedder" or embedder_card.metric != "cosine":
            raise FailedPrecondition(
                f"bundle {path}: {manifest['embedder']} must be an embedder's card of metric cosine, "
                f"is {embedder_card.kind} of {embedder_card.metric}"
            )
        return cls(
            manifest["name"],
            manifest["version"],
            folder,
            detector_card,
            embedder_card,
            manifest.get("hash"),
            manifest.get("calibration"),
            manifest.get("hubness"),
        )
