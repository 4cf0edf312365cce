"""The card beside a hash model: whose vectors it takes, how it was fitted, on what, how good it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from magpie.errors import FailedPrecondition
from magpie.index.hamming import LARGEST_BITS, WORD

FORMAT = 1  # of the card and its file; another one is refused


@dataclass(frozen=True)
class CoderCard:
    """The coder of one space."""

    method: str  # `itq`, `bernoulli-autoencoder`: how it was fitted; encoding is the same for all
    bits: int
    dimension: int  # of the space
    hidden: int = 0  # units of its hidden layer; 0: it has none

    def __post_init__(self) -> None:
        if self.bits % WORD or not WORD <= self.bits <= LARGEST_BITS:
            raise ValueError(f"bits must be a multiple of {WORD}, at most {LARGEST_BITS}, got {self.bits}")
        if self.dimension < 1 or self.hidden < 0:
            raise ValueError(f"dimension {self.dimension}, hidden {self.hidden}")


@dataclass(frozen=True)
class HashCard:
    """A hash model."""

    format: int
    file: str  # .npz beside the card
    sha256: str  # of that file
    embedder_sha256: str  # of the ONNX file whose vectors it encodes
    spaces: Mapping[str, CoderCard]
    training_data: tuple[str, ...] = ()
    measured: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)  # rows of the table

    def save(self, path: Path) -> None:
        """Write the card as JSON, all of it or nothing."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(asdict(self), indent=2) + "\n")
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> HashCard:
        """Read a card. Raises FailedPrecondition if it is missing, of another format, or a field is wrong."""
        try:
            raw = json.loads(path.read_text())
            if raw["format"] != FORMAT:
                raise FailedPrecondition(
                    f"hash card {path}: format {raw['format']!r}, this release reads format {FORMAT}"
                )
            raw["spaces"] = {space: CoderCard(**coder) for space, coder in raw["spaces"].items()}
            raw["training_data"] = tuple(raw.get("training_data", ()))
            raw["measured"] = tuple(raw.get("measured", ()))
            return cls(**raw)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise FailedPrecondition(f"hash card {path}: {error!r}") from error
