"""The hash model of a bundle: vectors to binary codes, a coder for each space. Numpy only.

A coder is one affine map, or two with tanh between, and the sign of what comes out. So linear methods (ITQ,
Gong and Lazebnik 2011; random frames, Jegou et al. 2012) and learned encoders are one format, and serving
does not care which one was the better.

`hash.npz` holds float32 arrays `SPACE.weight.L` (in, out) and `SPACE.bias.L` (out,) for layer L = 0, 1; the
card beside it (hash_card.py) has its checksum and that of the embedder whose vectors it encodes.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.index.hamming import Codes, pack
from magpie.index.hash_card import FORMAT, CoderCard, HashCard

Floats = NDArray[np.float32]

FILE = "hash.npz"
CARD = "hash.card.json"
_ROWS_AT_ONCE = 16384  # bounds the memory of their activations


@dataclass(frozen=True)
class Coder:
    """Vectors of one space to bits: bit i is 1 where output i of the last layer is above 0."""

    method: str
    weights: tuple[Floats, ...]  # (dimension, bits), or (dimension, hidden) and (hidden, bits)
    biases: tuple[Floats, ...]  # (bits,), or (hidden,) and (bits,)

    def __post_init__(self) -> None:
        if len(self.weights) not in (1, 2) or len(self.biases) != len(self.weights):
            raise ValueError(f"{len(self.weights)} layers: a coder has one or two")
        width = self.weights[0].shape[0]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            if weight.ndim != 2 or weight.shape[0] != width or bias.shape != weight.shape[1:]:
                raise ValueError(f"layers do not fit together: {weight.shape} after {width}, {bias.shape}")
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise ValueError("a weight is not finite")
            width = weight.shape[1]
        _ = self.card  # its bits and dimension are checked

    @property
    def card(self) -> CoderCard:
        """Its line in the card."""
        hidden = self.weights[0].shape[1] if len(self.weights) == 2 else 0
        return CoderCard(self.method, self.weights[-1].shape[1], self.weights[0].shape[0], hidden)

    def outputs(self, vectors: Floats) -> Floats:
        """(N, dimension) -> (N, bits): what the signs are taken of."""
        values = vectors @ self.weights[0] + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            values = np.tanh(values) @ weight + bias
        return values

    def encode(self, vectors: Floats) -> Codes:
        """(N, dimension) -> (N, bits / 8), packed as hamming.py says.

        An output within rounding of 0 may fall on either side on another processor: one bit of the code.
        """
        codes = np.empty((len(vectors), self.card.bits // 8), np.uint8)
        for first in range(0, len(vectors), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            codes[rows] = pack(self.outputs(vectors[rows]) > 0)
        return codes


class HashModel:
    """One coder a space. Immutable, so that threads may share it."""

    def __init__(self, coders: Mapping[str, Coder]) -> None:
        """Raises ValueError if there is none."""
        if not coders:
            raise ValueError("a hash model needs a coder")
        self._coders = dict(coders)

    @property
    def coders(self) -> Mapping[str, Coder]:
        """Space -> coder."""
        return self._coders

    @property
    def bits(self) -> dict[str, int]:
        """Space -> bits of a code."""
        return {space: coder.card.bits for space, coder in self._coders.items()}

    def encode(self, space: str, vectors: Floats) -> Codes:
        """(N, dimension) float32, unit norm -> (N, bits / 8), packed codes.

        Raises InvalidArgument for a space without a coder, or vectors of another dimension.
        """
        coder = self._coders.get(space)
        if coder is None:
            raise InvalidArgument("space", f"the hash model has {', '.join(self._coders)}, not {space!r}")
        if vectors.ndim != 2 or vectors.shape[1] != coder.card.dimension:
            raise InvalidArgument(
                "vectors", f"must be (N, {coder.card.dimension}) in space {space}, are {vectors.shape}"
            )
        return coder.encode(vectors)

    def save(
        self,
        folder: Path,
        embedder_sha256: str,
        training_data: Sequence[str] = (),
        measured: Sequence[Mapping[str, Any]] = (),
    ) -> HashCard:
        """Write FILE and CARD into `folder`; equal models give equal bytes. Raises OSError."""
        stream = io.BytesIO()
        np.savez(stream, **self._arrays())  # type: ignore[arg-type]  # names of arrays are keywords there
        content = stream.getvalue()
        part = folder / f"{FILE}.part"
        part.write_bytes(content)
        part.replace(folder / FILE)
        card = HashCard(
            format=FORMAT,
            file=FILE,
            sha256=hashlib.sha256(content).hexdigest(),
            embedder_sha256=embedder_sha256,
            spaces={space: coder.card for space, coder in self._coders.items()},
            training_data=tuple(training_data),
            measured=tuple(measured),
        )
        card.save(folder / CARD)
        return card

    def _arrays(self) -> dict[str, Floats]:
        arrays = {}
        for space, coder in self._coders.items():
            for layer, (weight, bias) in enumerate(zip(coder.weights, coder.biases, strict=True)):
                arrays[f"{space}.weight.{layer}"] = weight.astype("<f4")
                arrays[f"{space}.bias.{layer}"] = bias.astype("<f4")
        return arrays

    @classmethod
    def load(cls, folder: Path, card_file: str, embedder_sha256: str) -> HashModel:
        """The hash model whose card is `card_file` in `folder` (`Bundle.hash`).

        Raises FailedPrecondition, naming the file, if card or file is missing, does not match the other, or
        belongs to another embedder than that of `embedder_sha256` (`Bundle.embedder_card.sha256`).
        """
        card = HashCard.load(folder / card_file)
        if card.embedder_sha256 != embedder_sha256:
            raise FailedPrecondition(
                f"hash card {folder / card_file} is for the embedder of SHA-256 {card.embedder_sha256}, "
                f"the bundle's is {embedder_sha256}: fit the hash model again"
            )
        path = folder / card.file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FailedPrecondition(f"hash model {path}: {error}") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != card.sha256:
            raise FailedPrecondition(f"hash model {path} has SHA-256 {digest}, its card says {card.sha256}")
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls({space: _coder(space, spec, arrays) for space, spec in card.spaces.items()})
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise FailedPrecondition(f"hash model {path}: {error}") from error


def _coder(space: str, spec: CoderCard, arrays: Mapping[str, Any]) -> Coder:
    layers = range(2 if spec.hidden else 1)
    coder = Coder(
        spec.method,
        tuple(np.ascontiguousarray(arrays[f"{space}.weight.{layer}"], np.float32) for layer in layers),
        tuple(np.ascontiguousarray(arrays[f"{space}.bias.{layer}"], np.float32) for layer in layers),
    )
    if coder.card != spec:
        raise ValueError(f"{space} is {coder.card}, the card says {spec}")
    return coder
