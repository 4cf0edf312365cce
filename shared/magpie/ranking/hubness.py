"""Hubness: some pictures lie near to every photo, and stand before the one that is looked for.

In many dimensions a few points are nearest neighbours of very many others (Radovanovic et al. 2010, JMLR 11),
and the goods that an embedder was trained on draw photos of goods that it never saw. So a candidate pays for
how near it lies to photos that have nothing to do with the query, the references: Nearest Neighbor
Normalization (Chowdhury et al. 2024, arXiv 2410.24114), in space `identity`:

    penalty(g) = strength * (mean of the `nearest` largest cosines of g and a reference - usual)

`usual` is that mean of an ordinary catalogue picture, so that scores keep their scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from magpie.errors import FailedPrecondition
from magpie.ranking.calibration import HIT_SPACE

FORMAT = 1  # of the file; another one is refused
FILE = "hubness.npz"


@dataclass(frozen=True, eq=False)
class Hubness:
    """The references of one embedder, and how much of a candidate's nearness to them is taken off."""

    embedder_sha256: str  # of the ONNX file that made the vectors
    references: NDArray[np.float32]  # (R, D), unit norm: photos, in HIT_SPACE
    nearest: int  # of the references that count, at least 1
    strength: float  # at least 0
    usual: float  # cosine

    def nearness(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean cosine of each vector and its nearest references: (N, D), unit norm -> (N,)."""
        cosines = vectors @ self.references.T
        kept = np.partition(cosines, -self.nearest, axis=1)[:, -self.nearest :]
        return np.asarray(kept.mean(axis=1, dtype=np.float64))

    def penalty(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """What is taken off the cosines of these candidates: (N, D), unit norm -> (N,)."""
        return self.strength * (self.nearness(vectors) - self.usual)

    def penalties(self, vectors: NDArray[np.float32], spaces: Sequence[str]) -> NDArray[np.float64]:
        """The same, space by space: (N, S), zero but in HIT_SPACE, in which the vectors are."""
        penalties = np.zeros((len(vectors), len(spaces)))
        if HIT_SPACE in spaces:
            penalties[:, list(spaces).index(HIT_SPACE)] = self.penalty(vectors)
        return penalties

    def save(self, folder: Path) -> None:
        """Write it as FILE, the references in half precision: 256 bytes each at 128 dimensions."""
        np.savez(
            folder / FILE,
            format=FORMAT,
            embedder_sha256=self.embedder_sha256,
            references=self.references.astype(np.float16),
            nearest=self.nearest,
            strength=self.strength,
            usual=self.usual,
        )

    @classmethod
    def load(cls, folder: Path, file: str, embedder_sha256: str) -> Hubness:
        """That of a bundle. `embedder_sha256` is what the embedder's card says.

        Raises FailedPrecondition naming the file if it is missing, of another form, or of another embedder.
        """
        path = folder / file
        try:
            with np.load(path, allow_pickle=False) as values:
                if int(values["format"]) != FORMAT:
                    raise FailedPrecondition(
                        f"hubness {path} has format {values['format']}, this Magpie reads {FORMAT}"
                    )
                references = values["references"].astype(np.float32)
                hubness = cls(
                    str(values["embedder_sha256"]),
                    references / np.linalg.norm(references, axis=1, keepdims=True),
                    int(values["nearest"]),
                    float(values["strength"]),
                    float(values["usual"]),
                )
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
            raise FailedPrecondition(f"hubness {path}: {error!r}") from error
        if hubness.embedder_sha256 != embedder_sha256:
            raise FailedPrecondition(
                f"hubness {path} is of an embedder with SHA-256 {hubness.embedder_sha256}, the bundle's has "
                f"{embedder_sha256}: export the bundle anew"
            )
        if not (1 <= hubness.nearest <= len(references) and 0 <= hubness.strength < np.inf):
            raise FailedPrecondition(f"hubness {path}: `nearest` or `strength` is out of range")
        return hubness
