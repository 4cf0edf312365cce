"""One ONNX model, run as its card says or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort  # type: ignore[import-untyped]

from magpie.errors import FailedPrecondition
from magpie.vision.model_card import ModelCard

Tensor = NDArray[np.float32]

# A file that is no model, a graph that is none, an operator that is missing, an input that does not fit.
_REFUSALS = (
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NotImplemented,
    ort.RuntimeException,
)


class OnnxSession:
    """A model on the CPU. Loads at its first run and may be run by several threads at once."""

    def __init__(self, card: ModelCard, folder: Path, threads: int) -> None:
        self._card = card
        self._folder = folder
        self._threads = threads
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None

    def run(self, tensor: Tensor) -> dict[str, Tensor]:
        """(N, 3, size, size) float32 -> every output of the card by name, N first.

        Raises FailedPrecondition at the first run if the model does not match its card.
        """
        names = [output.name for output in self._card.outputs]
        values = self._loaded().run(names, {self._card.input.name: tensor})
        return dict(zip(names, values, strict=True))

    def load(self) -> None:
        """Load and check now, so that the first run does not pay for it. Raises FailedPrecondition."""
        self._loaded()

    def _loaded(self) -> onnxruntime.InferenceSession:
        with self._lock:
            if self._session is None:
                self._session = _checked_session(self._card, self._folder, self._threads)
            return self._session


def _checked_session(card: ModelCard, folder: Path, threads: int) -> onnxruntime.InferenceSession:
    path = card.verified_model(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    # Threads that spin while they wait take the cores from the decoding of the next photo.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _REFUSALS as error:
        raise FailedPrecondition(f"model {path} does not load: {error}") from error
    _check_input(card, session, path)
    _check_outputs(card, session, path)
    return session


def _check_input(card: ModelCard, session: onnxruntime.InferenceSession, path: Path) -> None:
    found = [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()]
    wanted = [(card.input.name, "tensor(float)", [3, card.input.size, card.input.size])]
    if found != wanted:
        raise FailedPrecondition(f"model {path} takes {found}, its card says {wanted}")


def _check_outputs(card: ModelCard, session: onnxruntime.InferenceSession, path: Path) -> None:
    """By a run of two squares: exporters leave declared shapes open. Tells a fixed batch, and warms up."""
    found = {node.name for node in session.get_outputs()}
    wanted = {output.name for output in card.outputs}
    if found != wanted:
        raise FailedPrecondition(f"model {path} gives {sorted(found)}, its card says {sorted(wanted)}")
    size = card.input.size
    probe = {card.input.name: np.zeros((2, 3, size, size), np.float32)}
    names = [output.name for output in card.outputs]
    try:
        values = session.run(names, probe)
    except _REFUSALS as error:
        raise FailedPrecondition(f"model {path} does not run on its card's input: {error}") from error
    for output, value in zip(card.outputs, values, strict=True):
        shape = (*value.shape[:1], *value.shape[-1:])
        if value.dtype != np.float32 or shape != (2, output.dimension):
            raise FailedPrecondition(
                f"model {path}: output {output.name} is {value.dtype} {value.shape} for a batch of 2, "
                f"its card says float32 of dimension {output.dimension}"
            )
